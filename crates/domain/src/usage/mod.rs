//! Meters, the ledger of usage, and quotas.
//!
//! A call is counted in a [`CallSpool`]; what is lent of a quota and what is reserved stands beside the counter.
//! May use: `kernel`.

mod call;
mod meter;
mod quota;
mod quota_drift;
mod usage;

pub use call::{Call, CallSpool, EndedSpool, SpoolTally, SpoolTrouble};
pub use meter::{Aggregation, Meter, MeterKey, MeterTerms, Meters, OveragePrice, PLAN_KEY_RULE, is_plan_key};
pub use quota::{
    AlertBase, CommitError, Ended, MOST_UNITS, NotEnough, QuotaAlert, QuotaCounter, QuotaExceeded,
    QuotaLease, QuotaReservation, QuotaUpkeep, Quotas, ReservationState, StillLent, Tally, Threshold,
};
pub use quota_drift::{QuotaDrift, QuotaFinding};
pub use usage::{
    Appended, Granularity, Intake, KeyedUsage, Measured, NewUsage, OutOfWindow, ROLLUP_PATIENCE, Rollup,
    USAGE_BATCH, Usage, UsageEvent, UsageKey, UsageOrigin, UsagePointers, UsageUpkeep, UsageWindow,
    check_reason, total_of,
};
