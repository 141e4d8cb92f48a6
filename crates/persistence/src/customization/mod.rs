//! What tenants have set, and how they look.

pub(crate) mod branding;
pub(crate) mod setting;
