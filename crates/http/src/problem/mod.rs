//! Problem documents (RFC 9457), and which one each error of a use case becomes.

pub(crate) mod error;
pub(crate) mod error_map;
pub(crate) mod problem;
