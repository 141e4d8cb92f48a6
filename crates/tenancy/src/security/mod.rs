//! Suspicious activity: what is counted in memory for the audit log, the search for it in the log, alerts, and their rules.

pub mod activity;
pub mod alert;
pub mod detection;
pub(crate) mod notice;
mod raise;
pub mod rule;
