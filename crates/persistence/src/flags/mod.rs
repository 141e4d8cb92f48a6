//! Definitions, segments and overrides of feature flags.

pub(crate) mod flag;
pub(crate) mod flag_override;
