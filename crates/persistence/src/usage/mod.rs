//! The ledger of usage, roll-ups, quotas and their upkeep.

pub(crate) mod quota;
pub(crate) mod quota_upkeep;
pub(crate) mod usage;
pub(crate) mod usage_upkeep;
