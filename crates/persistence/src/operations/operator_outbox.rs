use async_trait::async_trait;
use sea_orm::QueryResult;
use tenantry_domain::audit::StreamFrom;
use tenantry_domain::kernel::{OperatorEventId, OperatorId, StoreError, SystemScope, TenantId, Time};
use tenantry_domain::operations::{OperatorOutbox, RecordedOperatorEvent};
use tenantry_domain::store::Mode;
use uuid::Uuid;

use crate::Pool;
use crate::kernel::error::column;
use crate::kernel::tx::PlatformTx;

/// Entries of the log of operators that were not sent yet, as the platform role.
#[derive(Debug, Clone)]
pub struct PgOperatorOutbox {
    platform: Pool,
}

impl PgOperatorOutbox {
    /// Over a pool of the platform role.
    pub fn new(platform: Pool) -> Self {
        Self { platform }
    }

    async fn run(
        &self,
        because: SystemScope,
        sql: &'static str,
        arguments: impl IntoIterator<Item = sea_orm::Value>,
    ) -> Result<Vec<QueryResult>, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        let rows = tx.fetch_fixed(sql, arguments).await?;
        tx.commit().await?;
        Ok(rows)
    }
}

/// `$1` whether there is nothing of before to add.
const BEGIN: &str =
    "INSERT INTO operator_event_stream (seeded) VALUES ($1) ON CONFLICT (only_row) DO NOTHING";

/// Whether all transactions that may not have seen the row have ended. After a restore into another server whose transactions have lower
/// numbers they have.
const STATE: &str = "\
SELECT s.seeded, pg_snapshot_xmin(pg_current_snapshot())::text::bigint > s.begun_xact \
  OR s.begun_xact >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS settled \
 FROM operator_event_stream s FOR UPDATE";

const SEED: &str =
    "INSERT INTO operator_event_outbox (event_id) SELECT e.id FROM operator_events e ON CONFLICT DO NOTHING";

const SEEDED: &str = "UPDATE operator_event_stream SET seeded = true";

/// `$1` the lease, `$2` for how many seconds.
const LEASE: &str = "\
UPDATE operator_event_stream s SET lease_id = $1, lease_until = now() + make_interval(secs => $2) \
 WHERE (s.lease_until IS NULL OR s.lease_until < now()) AND EXISTS (SELECT FROM operator_event_outbox) RETURNING s.only_row";

/// `$1` how many.
const NEXT: &str = "\
SELECT e.id, e.at, e.operator_id, e.action, e.reason, e.target_tenant, e.request_id, e.ip, e.details \
  FROM operator_event_outbox o JOIN operator_events e ON e.id = o.event_id ORDER BY o.event_id LIMIT $1";

/// `$1` the lease.
const RELEASE: &str = "\
UPDATE operator_event_stream s SET lease_id = NULL, lease_until = NULL WHERE s.lease_id = $1 RETURNING s.only_row";

/// `$1` the entries.
const REMOVE: &str = "DELETE FROM operator_event_outbox o WHERE o.event_id = ANY ($1)";

const SINCE: &str = "\
SELECT e.at FROM operator_event_outbox o JOIN operator_events e ON e.id = o.event_id ORDER BY o.event_id LIMIT 1";

#[async_trait]
impl OperatorOutbox for PgOperatorOutbox {
    async fn begin(&self, because: SystemScope, from: StreamFrom) -> Result<bool, StoreError> {
        self.run(because, BEGIN, [(from == StreamFrom::Now).into()])
            .await?;
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        let rows = tx.fetch_fixed(STATE, []).await?;
        let Some(row) = rows.first() else {
            return Ok(false);
        };
        let (seeded, settled): (bool, bool) = (column(row, "seeded")?, column(row, "settled")?);
        if !seeded && settled {
            tx.fetch_fixed(SEED, []).await?;
            tx.fetch_fixed(SEEDED, []).await?;
        }
        tx.commit().await?;
        Ok(seeded || settled)
    }

    async fn lease(
        &self,
        because: SystemScope,
        (lease, seconds): (Uuid, i64),
        limit: u32,
    ) -> Result<Vec<RecordedOperatorEvent>, StoreError> {
        // The number of seconds is a double precision of PostgreSQL.
        let arguments = [lease.into(), (seconds as f64).into()];
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        let rows = match tx.fetch_fixed(LEASE, arguments).await?.is_empty() {
            true => Vec::new(),
            false => tx.fetch_fixed(NEXT, [i64::from(limit).into()]).await?,
        };
        tx.commit().await?;
        rows.iter().map(event).collect()
    }

    async fn acknowledge(
        &self,
        because: SystemScope,
        lease: Uuid,
        sent: &[OperatorEventId],
    ) -> Result<(), StoreError> {
        let sent: Vec<Uuid> = sent.iter().map(|id| id.uuid()).collect();
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        if !tx.fetch_fixed(RELEASE, [lease.into()]).await?.is_empty() {
            tx.fetch_fixed(REMOVE, [sent.into()]).await?;
        }
        tx.commit().await
    }

    async fn since(&self, because: SystemScope) -> Result<Option<Time>, StoreError> {
        let rows = self.run(because, SINCE, []).await?;
        rows.first().map(|row| column(row, "at")).transpose()
    }
}

fn event(row: &QueryResult) -> Result<RecordedOperatorEvent, StoreError> {
    Ok(RecordedOperatorEvent {
        id: column::<Uuid>(row, "id")?.into(),
        at: column(row, "at")?,
        operator: column::<Option<Uuid>>(row, "operator_id")?.map(OperatorId::from),
        operator_name: None,
        action: column(row, "action")?,
        reason: column(row, "reason")?,
        target_tenant: column::<Option<Uuid>>(row, "target_tenant")?.map(TenantId::from),
        request_id: column(row, "request_id")?,
        ip: column(row, "ip")?,
        details: column(row, "details")?,
    })
}
