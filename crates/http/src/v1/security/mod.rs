//! Alerts about suspicious activity, and the rules that raise them.

pub(crate) mod alert;
pub(crate) mod rule;
