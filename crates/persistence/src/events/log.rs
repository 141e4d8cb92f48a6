use async_trait::async_trait;
use sea_orm::{QueryResult, Value};
use tenantry_domain::events::{ExportBacklog, LogEnds, PublishedEvents};
use tenantry_domain::kernel::{StoreError, SystemScope, TenantId, Time};
use tenantry_domain::store::Mode;
use uuid::Uuid;

use crate::Pool;
use crate::kernel::error::column;
use crate::kernel::tx::PlatformTx;

/// The log of what was published in the feeds of all tenants, as the platform role. It sees nothing of the events.
#[derive(Debug, Clone)]
pub struct PgPublishedEvents {
    platform: Pool,
}

impl PgPublishedEvents {
    /// Over a pool of the platform role.
    pub fn new(platform: Pool) -> Self {
        Self { platform }
    }

    async fn read(
        &self,
        because: SystemScope,
        sql: &'static str,
        arguments: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<QueryResult>, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let rows = tx.fetch_fixed(sql, arguments).await?;
        tx.commit().await?;
        Ok(rows)
    }
}

const IS_DUE: &str = "SELECT EXISTS (SELECT FROM event_progress p WHERE p.listed < p.published) AS due";

/// The state of the log, locked until the commit: numbers are committed in their order. Publishers of the tenants that are added wait for the
/// commit too, so a process that is stopped between two statements loses its transaction after two seconds.
const LOCK: &str = "\
SELECT s.last, set_config('idle_in_transaction_session_timeout', '2000', true) FROM event_log_state s FOR UPDATE";

/// `$1` how many tenants, `$2` now. It runs in a statement after the one that has locked, so that it sees which numbers were given until then.
/// A tenant whose publisher is committing is left to the next time. An entry has at most 1,000 positions, since a page of events reads whole entries.
const APPEND: &str = "\
WITH due AS (SELECT p.tenant_id, p.listed, least(p.published, p.listed + 1000) AS through FROM event_progress p WHERE p.listed < p.published \
 AND EXISTS (SELECT FROM event_log_state) ORDER BY p.tenant_id LIMIT $1 FOR UPDATE SKIP LOCKED), \
noted AS (UPDATE event_progress p SET listed = due.through FROM due WHERE p.tenant_id = due.tenant_id RETURNING p.tenant_id), \
added AS (INSERT INTO event_log (number, of_tenant, first_position, last_position, created_at) \
 SELECT s.last + row_number() OVER (ORDER BY d.tenant_id), d.tenant_id, d.listed + 1, d.through, $2 \
 FROM due d JOIN noted n ON n.tenant_id = d.tenant_id CROSS JOIN event_log_state s RETURNING number), \
counted AS (SELECT count(*) AS entries FROM added), \
moved AS (UPDATE event_log_state s SET last = s.last + c.entries FROM counted c WHERE c.entries > 0 RETURNING s.last) \
SELECT c.entries FROM counted c";

/// `$1` before when. Entries are deleted in the order of their numbers, some at a time.
const EXPIRE: &str = "\
WITH first AS (SELECT l.number, l.created_at FROM event_log l ORDER BY l.number LIMIT 1000), \
gone AS (DELETE FROM event_log l USING first f WHERE l.number = f.number AND f.created_at < $1 RETURNING l.number), \
counted AS (SELECT count(*) AS entries, coalesce(max(g.number), 0) AS floor FROM gone g), \
moved AS (UPDATE event_log_state s SET floor = greatest(s.floor, c.floor) FROM counted c WHERE c.entries > 0 RETURNING s.floor) \
SELECT c.entries FROM counted c";

const ENDS: &str = "SELECT s.floor, s.last FROM event_log_state s";

/// `$1` the tenant.
const LAST_OF: &str = "SELECT coalesce(max(l.number), 0) AS last FROM event_log l WHERE l.of_tenant = $1";

/// `$1` after which tenant, `$2` how many. The index has only the tenants with something to export.
const TO_EXPORT: &str = "\
SELECT p.tenant_id FROM event_progress p JOIN tenants t ON t.id = p.tenant_id \
 WHERE p.tenant_id > $1 AND p.exported < p.published AND (p.lease_until IS NULL OR p.lease_until < now()) \
   AND t.status IN ('active', 'suspended') \
 ORDER BY p.tenant_id LIMIT $2";

const BACKLOG: &str = "\
SELECT count(*) AS tenants, coalesce(sum(p.published - greatest(p.exported, p.deleted)), 0)::bigint AS events \
  FROM event_progress p JOIN tenants t ON t.id = p.tenant_id \
 WHERE p.exported < p.published AND t.status IN ('active', 'suspended')";

#[async_trait]
impl PublishedEvents for PgPublishedEvents {
    async fn append(
        &self,
        because: SystemScope,
        (now, expired): (Time, Time),
        limit: u32,
    ) -> Result<u64, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        let due = tx.fetch_fixed(IS_DUE, []).await?;
        if !due.first().map_or(Ok(false), |row| column::<bool>(row, "due"))? {
            tx.commit().await?;
            return Ok(0);
        }
        tx.fetch_fixed(LOCK, []).await?;
        let added = tx
            .fetch_fixed(APPEND, [i64::from(limit).into(), now.into()])
            .await?;
        let added = added.first().map_or(Ok(0), |row| column::<i64>(row, "entries"))?;
        if added > 0 {
            tx.fetch_fixed(EXPIRE, [expired.into()]).await?;
        }
        tx.commit().await?;
        Ok(added.unsigned_abs())
    }

    async fn last_of(&self, because: SystemScope, tenant: TenantId) -> Result<i64, StoreError> {
        let rows = self.read(because, LAST_OF, [tenant.uuid().into()]).await?;
        rows.first().map_or(Ok(0), |row| column(row, "last"))
    }

    async fn ends(&self, because: SystemScope) -> Result<LogEnds, StoreError> {
        let rows = self.read(because, ENDS, []).await?;
        let Some(row) = rows.first() else {
            return Ok(LogEnds::default());
        };
        Ok(LogEnds {
            floor: column(row, "floor")?,
            last: column(row, "last")?,
        })
    }

    async fn to_export(
        &self,
        because: SystemScope,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<TenantId>, StoreError> {
        let after = after.map_or_else(Uuid::nil, TenantId::uuid);
        let arguments = [after.into(), i64::from(limit).into()];
        let rows = self.read(because, TO_EXPORT, arguments).await?;
        let tenant = |row| column::<Uuid>(row, "tenant_id").map(TenantId::from);
        rows.iter().map(tenant).collect()
    }

    async fn backlog(&self, because: SystemScope) -> Result<ExportBacklog, StoreError> {
        let rows = self.read(because, BACKLOG, []).await?;
        let Some(row) = rows.first() else {
            return Ok(ExportBacklog::default());
        };
        Ok(ExportBacklog {
            tenants: column::<i64>(row, "tenants")?.unsigned_abs(),
            events: column::<i64>(row, "events")?.unsigned_abs(),
        })
    }
}
