use async_trait::async_trait;
use sea_orm::{QueryResult, Value};
use tenantry_domain::kernel::{StoreError, SystemScope, TenantId};
use tenantry_domain::store::Mode;
use tenantry_domain::usage::QuotaUpkeep;
use uuid::Uuid;

use crate::Pool;
use crate::kernel::error::column;
use crate::kernel::tx::PlatformTx;

/// Leases of quotas across tenants, as the platform role, which sees whose they are and not how much.
#[derive(Debug, Clone)]
pub struct PgQuotaUpkeep {
    platform: Pool,
}

impl PgQuotaUpkeep {
    /// Upkeep over a pool of the platform role.
    pub fn new(platform: Pool) -> Self {
        Self { platform }
    }

    async fn tenants(
        &self,
        because: SystemScope,
        sql: &'static str,
        arguments: Vec<Value>,
    ) -> Result<Vec<TenantId>, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let rows = tx.fetch_fixed(sql, arguments).await?;
        tx.commit().await?;
        let tenant = |row: &QueryResult| column::<Uuid>(row, "tenant_id").map(TenantId::from);
        rows.iter().map(tenant).collect()
    }
}

/// Leases live for seconds, so there are few that have not expired.
const LAPSED: &str = "\
SELECT DISTINCT q.tenant_id FROM quota_leases q \
 WHERE NOT q.expired AND q.expires_at <= clock_timestamp() AND q.tenant_id > $1 ORDER BY q.tenant_id LIMIT $2";

const HELD_BY: &str = "\
SELECT DISTINCT q.tenant_id FROM quota_leases q \
 WHERE q.instance = $3 AND q.tenant_id > $1 ORDER BY q.tenant_id LIMIT $2";

#[async_trait]
impl QuotaUpkeep for PgQuotaUpkeep {
    async fn lapsed(
        &self,
        because: SystemScope,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<TenantId>, StoreError> {
        self.tenants(because, LAPSED, vec![first(after), i64::from(limit).into()])
            .await
    }

    async fn held_by(
        &self,
        because: SystemScope,
        instance: Uuid,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<TenantId>, StoreError> {
        let arguments = vec![first(after), i64::from(limit).into(), instance.into()];
        self.tenants(because, HELD_BY, arguments).await
    }
}

/// The tenant behind which the list goes on; the nil id is before all of them.
fn first(after: Option<TenantId>) -> Value {
    after.map_or_else(Uuid::nil, TenantId::uuid).into()
}
