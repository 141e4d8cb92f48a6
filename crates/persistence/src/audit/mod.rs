//! The audit log and its hash chain.

pub(crate) mod audit;
pub(crate) mod chain;
