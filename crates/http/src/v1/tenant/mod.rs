//! Sign-up, the tenant of the caller, and operators' access to it.

pub(crate) mod custom_domain;
pub(crate) mod signup;
pub(crate) mod support_access;
pub(crate) mod tenant;
