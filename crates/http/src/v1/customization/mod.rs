//! Settings and branding.

pub(crate) mod branding;
pub(crate) mod setting;
