//! Metering and quotas: calls and events that are counted, the ledger, roll-ups, reservations, alerts, and the comparison of
//! counters with the ledger.
//!
//! [`usage_rollup::LedgerRecorder`] and [`quota_recovery::LeaseRecovery`] are what tenancy asks; [`quota_lending::StoredQuotas`]
//! is what the request path borrows from. Events are recorded in the ledger once, by their key.
//!
//! May use: `kernel`.

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
