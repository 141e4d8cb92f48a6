//! What schemas of several rooms share.

pub(crate) mod schema;
