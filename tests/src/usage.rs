use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use tenantry_domain::{Aggregation, MeterKey, Period, StoreError, TenantId, Time, Work};
use tenantry_tenancy::Metered;

/// Number and revision of each hour of each meter of each tenant.
type Hours = BTreeMap<(TenantId, MeterKey, Time), (u64, i64)>;

/// What tenants used, as a test says it.
#[derive(Debug, Default)]
pub struct UsageTable {
    hours: Mutex<Hours>,
}

impl UsageTable {
    /// An empty one.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// What was used of a meter in the hour around a moment; said again it is another revision.
    pub fn set(&self, tenant: TenantId, meter: &str, at: Time, quantity: u64) {
        let key = (tenant, MeterKey::parse(meter).unwrap(), Period::hour_of(at).start);
        let mut hours = self.hours.lock().unwrap();
        let entry = hours.entry(key).or_default();
        *entry = (quantity, entry.1 + 1);
    }
}

#[async_trait]
impl Metered for UsageTable {
    async fn total(
        &self,
        work: &mut Work,
        meter: &MeterKey,
        aggregation: Aggregation,
        period: Period,
    ) -> Result<u64, StoreError> {
        let hours = self.hours(work, meter, aggregation, period).await?;
        Ok(hours.into_iter().map(|(_, quantity, _)| quantity).sum())
    }

    async fn hours(
        &self,
        work: &mut Work,
        meter: &MeterKey,
        _: Aggregation,
        period: Period,
    ) -> Result<Vec<(Time, u64, i64)>, StoreError> {
        let tenant = work.scope().tenant();
        let hours = self.hours.lock().unwrap();
        let of_meter = hours
            .iter()
            .filter(|((of, key, hour), _)| *of == tenant && key == meter && period.contains(*hour));
        Ok(of_meter
            .map(|((_, _, hour), (quantity, revision))| (*hour, *quantity, *revision))
            .collect())
    }
}
