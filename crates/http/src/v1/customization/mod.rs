//! Settings and branding.

pub(crate) mod branding;
pub(crate) mod security_policy;
pub(crate) mod setting;
