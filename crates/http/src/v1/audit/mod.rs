//! The audit log of a tenant.

pub(crate) mod event;
pub(crate) mod export;
