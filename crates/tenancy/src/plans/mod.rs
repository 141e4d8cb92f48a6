//! Plans and their versions, and what a tenant is entitled to.

pub mod entitlement;
pub mod plan;
