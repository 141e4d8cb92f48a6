//! The audit log, its hash chain, and up to where it was sent.

pub(crate) mod audit;
pub(crate) mod chain;
pub(crate) mod stream;
