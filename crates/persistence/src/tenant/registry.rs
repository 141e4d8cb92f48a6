use async_trait::async_trait;
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, QueryTrait as _,
};
use tenantry_domain::kernel::{StoreError, SystemScope, TenantId, Time};
use tenantry_domain::store::Mode;
use tenantry_domain::tenant::{Tenant, TenantRegistry};

use crate::Pool;
use crate::kernel::error::column;
use crate::kernel::tx::PlatformTx;
use crate::tenant::tenant::entity::{Column, Entity};

/// All tenants, as the platform role.
#[derive(Debug, Clone)]
pub struct PgRegistry {
    platform: Pool,
}

impl PgRegistry {
    /// A registry over a pool of the platform role.
    pub fn new(platform: Pool) -> Self {
        Self { platform }
    }
}

/// The last bits of an id are drawn by lot, whichever version of UUID it is; its first are a time.
const DEALT: &str = "\
SELECT t.id FROM tenants t WHERE ('x' || right(t.id::text, 8))::bit(32)::bigint % $2 = $1 AND t.status IN ('active', 'suspended') \
 ORDER BY t.id";

const FREE_NAMES: &str = "DELETE FROM tenant_names n WHERE n.released_at < $1 RETURNING n.name";

#[async_trait]
impl TenantRegistry for PgRegistry {
    async fn list(
        &self,
        because: SystemScope,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<Tenant>, StoreError> {
        let mut find = Entity::find().order_by_asc(Column::Id).limit(u64::from(limit));
        if let Some(after) = after {
            find = find.filter(Column::Id.gt(after.uuid()));
        }
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let rows = tx.fetch::<Entity>(&find.into_query()).await?;
        tx.commit().await?;
        rows.into_iter().map(Tenant::try_from).collect()
    }

    async fn dealt(&self, because: SystemScope, part: u32, parts: u32) -> Result<Vec<TenantId>, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let arguments = [i64::from(part).into(), i64::from(parts).into()];
        let rows = tx.fetch_fixed(DEALT, arguments).await?;
        tx.commit().await?;
        let tenant = |row| column::<uuid::Uuid>(row, "id").map(TenantId::from);
        rows.iter().map(tenant).collect()
    }

    async fn free_names(&self, because: SystemScope, released_before: Time) -> Result<u64, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        let freed = tx.fetch_fixed(FREE_NAMES, [released_before.into()]).await?;
        tx.commit().await?;
        Ok(freed.len() as u64)
    }
}
