//! Refusals in the audit log: an entry for each kind and target, however often it happens.

pub mod refusal;
