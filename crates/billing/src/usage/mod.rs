//! Metering and quotas: calls and events that are counted, roll-ups, reservations, alerts, and the comparison with the ledger.

pub mod cycle;
pub mod metering;
pub mod quota;
pub mod quota_alert;
pub mod quota_drift;
pub mod quota_lending;
pub mod quota_recovery;
mod usage;
pub mod usage_rollup;

pub use usage::*;
