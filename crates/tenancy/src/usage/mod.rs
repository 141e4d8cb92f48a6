//! The ports of usage: recording of stored bytes and the upkeep of quotas and ledger. The crate `tenantry-billing` implements
//! them, and holds the use cases of metering and quotas; this crate never names it.
//!
//! Any room may use them. [`Unmetered`] is the default of a service without billing.

pub use crate::kernel::context::metering::{QuotaRecovery, Unmetered, UsageRecorder};
