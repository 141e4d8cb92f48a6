//! Versions of plans.

pub(crate) mod plan;
