//! Feature flags: what operators define, and what a tenant sees and overrides.

pub mod code_flag;
pub mod flag;
pub mod flag_definition;
