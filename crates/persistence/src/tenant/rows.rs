use async_trait::async_trait;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryResult, QueryTrait as _, Value};
use serde_json::json;
use tenantry_domain::kernel::{StoreError, SystemScope, TenantId, Time};
use tenantry_domain::store::Mode;
use tenantry_domain::tenant::{RowStep, RowTable, RowWork, Slug, Tenant, TenantRows, Tombstone};
use uuid::Uuid;

use crate::Pool;
use crate::kernel::error::{column, from_json};
use crate::kernel::tx::{PlatformTx, TenantTx};
use crate::tenant::tenant::entity::{Column, Entity};

/// The rows of tenants that change their state. Which tables there are is asked as the platform role. Rows are marked and erased as
/// the runtime role in the transaction of the one tenant; where that role may not delete, a function of the owner does, which the
/// platform role calls.
#[derive(Debug, Clone)]
pub struct PgTenantRows {
    runtime: Pool,
    platform: Pool,
}

impl PgTenantRows {
    /// The rows over a pool of the runtime role and one of the platform role.
    pub fn new(runtime: Pool, platform: Pool) -> Self {
        Self { runtime, platform }
    }

    async fn one(
        &self,
        because: SystemScope,
        condition: sea_orm::sea_query::SimpleExpr,
    ) -> Result<Option<Tenant>, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let find = Entity::find().filter(condition).into_query();
        let rows = tx.fetch::<Entity>(&find).await?;
        tx.commit().await?;
        rows.into_iter().next().map(Tenant::try_from).transpose()
    }

    async fn ask(
        &self,
        because: SystemScope,
        sql: &'static str,
        arguments: Vec<Value>,
    ) -> Result<Vec<QueryResult>, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let rows = tx.fetch_fixed(sql, arguments).await?;
        tx.commit().await?;
        Ok(rows)
    }
}

const TABLES: &str = "SELECT t.name, t.soft, t.by_runtime FROM tenant_row_tables() t";

/// `$1` is the tenant that is set; the function reads it from there.
const STEP: &str = "\
SELECT s.last, s.seen, s.done FROM tenant_rows_step($2, $3, $4, $5) s WHERE $1::uuid IS NOT NULL";

const ERASE: &str = "SELECT s.last, s.seen, s.done FROM tenant_rows_erase($1, $2, $3, $4) s";

const PENDING: &str = "\
SELECT t.id FROM tenants t WHERE t.row_work IS NOT NULL \
UNION SELECT t.id FROM tenants t WHERE t.status = 'deleted' AND t.purge_at <= $1 \
ORDER BY id LIMIT $2";

const HAS_ARCHIVES: &str = "\
SELECT EXISTS (SELECT FROM tenant_exports e WHERE e.tenant_id = $1 AND e.status <> 'expired') AS there";

const PURGED_AMONG: &str = "\
SELECT s.id FROM tenant_tombstones s JOIN jsonb_array_elements_text($1) AS asked (id) ON s.id = asked.id::uuid \
WHERE NOT EXISTS (SELECT FROM tenants t WHERE t.id = s.id) ORDER BY s.id";

const TOMBSTONES: &str = "\
SELECT s.id, s.deleted_at, s.purged_at, s.row_counts, s.hash FROM tenant_tombstones s ORDER BY s.purged_at, s.id";

#[async_trait]
impl TenantRows for PgTenantRows {
    async fn tables(&self, because: SystemScope) -> Result<Vec<RowTable>, StoreError> {
        let rows = self.ask(because, TABLES, Vec::new()).await?;
        let table = |row: &QueryResult| {
            Ok(RowTable {
                name: column(row, "name")?,
                soft: column(row, "soft")?,
                by_runtime: column(row, "by_runtime")?,
            })
        };
        rows.iter().map(table).collect()
    }

    async fn step(
        &self,
        because: SystemScope,
        tenant: TenantId,
        (work, table): (RowWork, &RowTable),
        after: Option<Uuid>,
        at_most: u32,
    ) -> Result<RowStep, StoreError> {
        let at_most = i32::try_from(at_most).unwrap_or(i32::MAX);
        let row = if work == RowWork::Purge && !table.by_runtime {
            let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
            let arguments = [
                tenant.uuid().into(),
                table.name.clone().into(),
                after.into(),
                at_most.into(),
            ];
            let row = tx.fetch_fixed(ERASE, arguments).await?.pop();
            tx.commit().await?;
            row
        } else {
            let mut tx = TenantTx::begin(&self.runtime, tenant, Mode::Write).await?;
            let arguments = [
                table.name.clone().into(),
                work.as_str().into(),
                after.into(),
                at_most.into(),
            ];
            let row = tx.fetch_fixed(STEP, arguments).await?;
            tx.commit().await?;
            row
        };
        row.map_or(Ok(RowStep::Stopped), |row| step_of(&row, at_most))
    }

    async fn tenant(&self, because: SystemScope, id: TenantId) -> Result<Option<Tenant>, StoreError> {
        self.one(because, Column::Id.eq(id.uuid())).await
    }

    async fn tenant_named(&self, because: SystemScope, slug: &Slug) -> Result<Option<Tenant>, StoreError> {
        self.one(because, Column::Slug.eq(slug.as_str())).await
    }

    async fn pending(
        &self,
        because: SystemScope,
        now: Time,
        limit: u32,
    ) -> Result<Vec<TenantId>, StoreError> {
        let arguments = vec![now.into(), i64::from(limit).into()];
        let rows = self.ask(because, PENDING, arguments).await?;
        let tenant = |row| column::<Uuid>(row, "id").map(TenantId::from);
        rows.iter().map(tenant).collect()
    }

    async fn has_archives(&self, because: SystemScope, tenant: TenantId) -> Result<bool, StoreError> {
        tracing::debug!(reason = because.reason(), %tenant, "archives of a tenant");
        let mut tx = TenantTx::begin(&self.runtime, tenant, Mode::Read).await?;
        let row = tx.fetch_fixed(HAS_ARCHIVES, []).await?;
        tx.commit().await?;
        row.map_or(Ok(false), |row| column(&row, "there"))
    }

    async fn purged_among(
        &self,
        because: SystemScope,
        tenants: &[TenantId],
    ) -> Result<Vec<TenantId>, StoreError> {
        let rows = self
            .ask(because, PURGED_AMONG, vec![json!(tenants).into()])
            .await?;
        let tenant = |row| column::<Uuid>(row, "id").map(TenantId::from);
        rows.iter().map(tenant).collect()
    }

    async fn tombstones(&self, because: SystemScope) -> Result<Vec<Tombstone>, StoreError> {
        let rows = self.ask(because, TOMBSTONES, Vec::new()).await?;
        let tombstone = |row: &QueryResult| {
            Ok(Tombstone {
                id: column::<Uuid>(row, "id")?.into(),
                deleted_at: column(row, "deleted_at")?,
                purged_at: column(row, "purged_at")?,
                row_counts: serde_json::from_value(column(row, "row_counts")?).map_err(from_json)?,
                hash: column(row, "hash")?,
            })
        };
        rows.iter().map(tombstone).collect()
    }
}

/// A batch that saw fewer rows than it might have was the last one.
fn step_of(row: &QueryResult, at_most: i32) -> Result<RowStep, StoreError> {
    let Some(seen) = column::<Option<i32>>(row, "seen")? else {
        return Ok(RowStep::Stopped);
    };
    let done = column::<Option<i32>>(row, "done")?.unwrap_or_default();
    let done = u64::from(done.unsigned_abs());
    Ok(if seen < at_most {
        RowStep::End { done }
    } else {
        RowStep::More {
            done,
            after: column(row, "last")?,
        }
    })
}
