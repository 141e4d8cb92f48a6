use async_trait::async_trait;
use sea_orm::QueryResult;
use serde_json::Value;
use tenantry_domain::archive::{
    ARCHIVES_AT_ONCE, AboutPerson, ArchiveError, ErasedPerson, PersonRows, Put, RowBatch, RowSink, Snapshot,
    TableShape, TenantArchive,
};
use tenantry_domain::kernel::{StoreError, SystemScope, TenantId};
use tenantry_domain::store::Mode;
use uuid::Uuid;

use crate::Pool;
use crate::kernel::error::{column, from_json, is_own};
use crate::kernel::tx::{PlatformTx, TenantTx};

/// Maximum number of archives that a process reads or writes at once, each on a connection of its own.
const AT_ONCE: usize = ARCHIVES_AT_ONCE as usize;

/// The rows of tenants for archives, over connections of the runtime role that nothing else uses.
#[derive(Debug, Clone)]
pub struct PgTenantArchive {
    runtime: Pool,
    platform: Pool,
}

impl PgTenantArchive {
    /// Beside the pool of the runtime role, and over that of the platform role, which is asked for the list of tables only.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn new(runtime: &Pool, platform: Pool) -> Result<Self, StoreError> {
        Ok(Self {
            runtime: runtime.beside(AT_ONCE)?,
            platform,
        })
    }
}

const TABLES: &str = "SELECT t.name, t.columns, t.key, t.refers, t.changes FROM tenant_archive_tables() t";

/// `$1` is the tenant that is set; the functions read it from there.
const TABLES_IN_TENANT: &str = "\
SELECT t.name, t.columns, t.key, t.refers, t.changes FROM tenant_archive_tables() t WHERE $1::uuid IS NOT NULL";

const OPEN: &str = "SELECT tenant_archive_open($2, $3) WHERE $1::uuid IS NOT NULL";

const OPEN_PERSON: &str = "\
SELECT person_archive_open($2, $3, $4, $5, $6, $7, $8, $9) WHERE $1::uuid IS NOT NULL";

/// Also of a tenant whose rows are marked as deleted.
const ERASED: &str = "SELECT e.user_id, e.digests FROM erasures e WHERE e.tenant_id = $1";

const WRITE: &str = "\
SELECT w.inserted, w.replaced FROM tenant_archive_write($2, $3::text::jsonb, $4, $5) w WHERE $1::uuid IS NOT NULL";

/// The storage used is computed from the resources when there is no row of it.
const SETTLE: &str = "DELETE FROM storage_usage s WHERE s.tenant_id = $1 RETURNING s.id";

#[async_trait]
impl TenantArchive for PgTenantArchive {
    async fn tables(&self, because: SystemScope) -> Result<Vec<TableShape>, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let rows = tx.fetch_fixed(TABLES, []).await?;
        tx.commit().await?;
        rows.iter().map(shape).collect()
    }

    async fn erased(&self, because: SystemScope, tenant: TenantId) -> Result<Vec<ErasedPerson>, StoreError> {
        tracing::debug!(reason = because.reason(), %tenant, "erased people of a tenant");
        let mut tx = TenantTx::begin(&self.runtime, tenant, Mode::Read).await?;
        let rows = tx.fetch_all_fixed(ERASED, []).await?;
        tx.commit().await?;
        let person = |row: &QueryResult| {
            Ok(ErasedPerson {
                id: column::<Uuid>(row, "user_id")?.into(),
                digests: serde_json::from_value(column::<Value>(row, "digests")?).map_err(from_json)?,
            })
        };
        rows.iter().map(person).collect()
    }

    async fn snapshot(
        &self,
        because: SystemScope,
        tenant: TenantId,
    ) -> Result<Box<dyn Snapshot>, StoreError> {
        tracing::debug!(reason = because.reason(), %tenant, "snapshot of a tenant");
        let mut tx = TenantTx::begin_snapshot(&self.runtime, tenant).await?;
        let rows = tx.fetch_all_fixed(TABLES_IN_TENANT, []).await?;
        let tables = rows.iter().map(shape).collect::<Result<_, _>>()?;
        Ok(Box::new(PgSnapshot { tx, tables }))
    }

    async fn put(
        &self,
        because: SystemScope,
        tenant: TenantId,
        batch: RowBatch<'_>,
    ) -> Result<Put, StoreError> {
        tracing::debug!(reason = because.reason(), %tenant, table = batch.table, "rows of an archive");
        let mut tx = TenantTx::begin(&self.runtime, tenant, Mode::Write).await?;
        let arguments = [
            batch.table.into(),
            batch.rows.into(),
            batch.fills.clone().into(),
            batch.replace.into(),
        ];
        let row = tx.fetch_fixed(WRITE, arguments).await?;
        tx.commit().await?;
        let count = |name| row.as_ref().map_or(Ok(0), |row| column::<i64>(row, name));
        Ok(Put {
            inserted: count("inserted")?.unsigned_abs(),
            replaced: count("replaced")?.unsigned_abs(),
        })
    }

    async fn settle(&self, because: SystemScope, tenant: TenantId) -> Result<(), StoreError> {
        tracing::debug!(reason = because.reason(), %tenant, "derived rows of an archive");
        let mut tx = TenantTx::begin(&self.runtime, tenant, Mode::Write).await?;
        tx.fetch_fixed(SETTLE, []).await?;
        tx.commit().await
    }
}

struct PgSnapshot {
    tx: TenantTx,
    tables: Vec<TableShape>,
}

#[async_trait]
impl Snapshot for PgSnapshot {
    fn tables(&self) -> &[TableShape] {
        &self.tables
    }

    async fn read(
        &mut self,
        table: &str,
        left_out: &[String],
        sink: &mut dyn RowSink,
    ) -> Result<(), ArchiveError> {
        let arguments = [table.into(), left_out.to_vec().into()];
        self.tx.fetch_fixed(OPEN, arguments).await?;
        self.tx.drain_cursor(sink).await
    }

    async fn read_person(
        &mut self,
        table: &str,
        left_out: &[String],
        (about, rows): (&AboutPerson, &PersonRows),
        sink: &mut dyn RowSink,
    ) -> Result<(), ArchiveError> {
        let arguments = [
            table.into(),
            left_out.to_vec().into(),
            about.id.uuid().into(),
            about.proven.clone().into(),
            rows.ids.clone().into(),
            rows.addresses.clone().into(),
            rows.states.clone().into(),
            rows.chosen_by.into(),
        ];
        self.tx.fetch_fixed(OPEN_PERSON, arguments).await?;
        self.tx.drain_cursor(sink).await
    }

    async fn close(self: Box<Self>) {
        self.tx.rollback().await;
    }
}

fn shape(row: &QueryResult) -> Result<TableShape, StoreError> {
    let name: String = column(row, "name")?;
    Ok(TableShape {
        own: is_own(&name),
        columns: serde_json::from_value(column::<Value>(row, "columns")?).map_err(from_json)?,
        key: column::<Option<Vec<String>>>(row, "key")?.unwrap_or_default(),
        refers: serde_json::from_value(column::<Value>(row, "refers")?).map_err(from_json)?,
        changes: column(row, "changes")?,
        name,
    })
}
