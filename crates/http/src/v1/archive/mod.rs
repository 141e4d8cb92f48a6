//! Exports of a tenant.

pub(crate) mod export;
