//! Capabilities and entitlements.

pub(crate) mod capability;
pub(crate) mod entitlement;
