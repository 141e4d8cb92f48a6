use std::sync::Arc;

use async_trait::async_trait;
use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, QueryTrait as _,
};
use tenantry_domain::{
    Announcer, Change, Mode, StoreError, SystemScope, Tenant, TenantId, TenantRegistry, TenantStatus, Time,
};

use crate::Pool;
use crate::store::{Changes, exactly_one};
use crate::tenant::entity::{Column, Entity};
use crate::tx::PlatformTx;

/// All tenants, as the platform role.
#[derive(Clone)]
pub struct PgRegistry {
    platform: Pool,
    announcer: Arc<dyn Announcer>,
}

impl std::fmt::Debug for PgRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgRegistry")
            .field("platform", &self.platform)
            .finish_non_exhaustive()
    }
}

impl PgRegistry {
    /// A registry over a pool of the platform role; `announcer` hears of every change.
    pub fn new(platform: Pool, announcer: Arc<dyn Announcer>) -> Self {
        Self { platform, announcer }
    }
}

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

    async fn set_status(
        &self,
        because: SystemScope,
        tenant: TenantId,
        status: TenantStatus,
        at: Time,
    ) -> Result<Option<Tenant>, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        let update = Entity::update_many()
            .col_expr(Column::Status, Expr::value(status.as_str()))
            .col_expr(Column::UpdatedAt, Expr::value(at))
            .col_expr(
                Column::Version,
                sea_orm::sea_query::ExprTrait::add(Expr::col(Column::Version), 1),
            )
            .filter(Column::Id.eq(tenant.uuid()));
        let changed = tx.execute(&update.into_query()).await?;
        let rows = tx
            .fetch::<Entity>(&Entity::find().filter(Column::Id.eq(tenant.uuid())).into_query())
            .await?;
        if changed == 0 {
            return Ok(None);
        }
        exactly_one(changed)?;
        let mut changes = Changes::new(Arc::clone(&self.announcer));
        changes.note(Change::Tenant(tenant));
        tx.commit().await?;
        drop(changes);
        rows.into_iter().next().map(Tenant::try_from).transpose()
    }
}
