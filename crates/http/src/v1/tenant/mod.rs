//! Sign-up, and the tenant of the caller.

pub(crate) mod custom_domain;
pub(crate) mod signup;
pub(crate) mod tenant;
