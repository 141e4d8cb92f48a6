use async_trait::async_trait;
use sea_orm::Value;
use tenantry_domain::kernel::{Period, StoreError, SystemScope, TenantId, Time};
use tenantry_domain::store::Mode;
use tenantry_domain::usage::{ROLLUP_PATIENCE, UsageUpkeep};

use crate::Pool;
use crate::kernel::error::column;
use crate::kernel::tx::PlatformTx;

/// What is looked after of usage across tenants, as the platform role.
#[derive(Debug, Clone)]
pub struct PgUsageUpkeep {
    platform: Pool,
}

impl PgUsageUpkeep {
    /// Upkeep over a pool of the platform role.
    pub fn new(platform: Pool) -> Self {
        Self { platform }
    }
}

/// Hops from tenant to tenant through the index, and looks at no more than a thousand marks of each.
const WITH_CHANGES: &str = "\
WITH RECURSIVE next AS (\
 (SELECT u.tenant_id FROM usage_dirty u WHERE u.tenant_id > $1 ORDER BY u.tenant_id LIMIT 1) \
 UNION ALL SELECT (SELECT u.tenant_id FROM usage_dirty u WHERE u.tenant_id > next.tenant_id ORDER BY u.tenant_id LIMIT 1) \
 FROM next WHERE next.tenant_id IS NOT NULL) \
SELECT tenant_id FROM next WHERE tenant_id IS NOT NULL AND (\
 SELECT count(*) = 1000 OR bool_or(d.hour < $2 OR d.created_at <= $3) \
 FROM (SELECT u.hour, u.created_at FROM usage_dirty u WHERE u.tenant_id = next.tenant_id LIMIT 1000) d) LIMIT $4";

const WAITING_SINCE: &str = "SELECT min(u.created_at) AS since FROM usage_dirty u";

/// Three months ahead: whoever does not look after it for so long finds new usage in the default partition.
const MAKE_PARTITIONS: &str = "SELECT usage_events_partitions(1, 3) AS made";

#[async_trait]
impl UsageUpkeep for PgUsageUpkeep {
    async fn with_changes(
        &self,
        because: SystemScope,
        now: Time,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<TenantId>, StoreError> {
        let after = after.map_or_else(uuid::Uuid::nil, TenantId::uuid);
        let hour = Period::hour_of(now).start;
        let arguments: [Value; 4] = [
            after.into(),
            hour.into(),
            (now - ROLLUP_PATIENCE).into(),
            i64::from(limit).into(),
        ];
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let rows = tx.fetch_fixed(WITH_CHANGES, arguments).await?;
        tx.commit().await?;
        let tenant = |row| column::<uuid::Uuid>(row, "tenant_id").map(TenantId::from);
        rows.iter().map(tenant).collect()
    }

    async fn waiting_since(&self, because: SystemScope) -> Result<Option<Time>, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let rows = tx.fetch_fixed(WAITING_SINCE, []).await?;
        tx.commit().await?;
        rows.first().map_or(Ok(None), |row| column(row, "since"))
    }

    async fn make_partitions(&self, because: SystemScope) -> Result<u32, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        let rows = tx.fetch_fixed(MAKE_PARTITIONS, []).await?;
        tx.commit().await?;
        let made: i32 = rows.first().map_or(Ok(0), |row| column(row, "made"))?;
        Ok(made.unsigned_abs())
    }
}
