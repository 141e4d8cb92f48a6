//! Feature flags as a tenant sees them.

pub(crate) mod feature;
