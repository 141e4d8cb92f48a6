use async_trait::async_trait;
use tenantry_domain::{Aggregation, MeterKey, Period, StoreError, Time, Work};

/// Where it is known what tenants used. Both are exact: of events that were invalidated nothing is counted.
#[async_trait]
pub trait Metered: Send + Sync {
    /// What the scope's tenant used of a meter in a period.
    async fn total(
        &self,
        work: &mut Work,
        meter: &MeterKey,
        aggregation: Aggregation,
        period: Period,
    ) -> Result<u64, StoreError>;

    /// What it used in each hour of a period in which it used anything, in order, with a revision that grows each time the
    /// hour's number changes.
    async fn hours(
        &self,
        work: &mut Work,
        meter: &MeterKey,
        aggregation: Aggregation,
        period: Period,
    ) -> Result<Vec<(Time, u64, i64)>, StoreError>;
}
