use async_trait::async_trait;
use sea_orm::QueryResult;
use tenantry_domain::identity::{Email, Requested, Workspace, WorkspaceRequest, Workspaces};
use tenantry_domain::kernel::{StoreError, SystemScope, Time};
use tenantry_domain::store::Mode;

use crate::Pool;
use crate::kernel::error::column;
use crate::kernel::tx::PlatformTx;

/// The index of addresses and the requests about it, as the platform role; the runtime role has no grant on their tables.
#[derive(Debug, Clone)]
pub struct PgWorkspaces {
    platform: Pool,
}

impl PgWorkspaces {
    /// Workspaces over a pool of the platform role.
    pub fn new(platform: Pool) -> Self {
        Self { platform }
    }
}

#[async_trait]
impl Workspaces for PgWorkspaces {
    async fn request(
        &self,
        because: SystemScope,
        request: &WorkspaceRequest,
    ) -> Result<Requested, StoreError> {
        let arguments = [
            request.id.into(),
            request.email.as_str().into(),
            request.requested_at.into(),
            request.network.clone().into(),
            i64::from(WorkspaceRequest::MOST).into(),
            i64::from(WorkspaceRequest::MOST_OF_NETWORK).into(),
            (request.requested_at - WorkspaceRequest::PAUSE).into(),
        ];
        let mut tx = PlatformTx::begin_for_guest(&self.platform, because, Mode::Write).await?;
        let rows = tx.fetch_fixed(REQUEST, arguments).await?;
        tx.commit().await?;
        let row = rows.first();
        let row = row.ok_or_else(|| StoreError::Other("a request for workspaces has no outcome".into()))?;
        Ok(
            match (
                column(row, "stored")?,
                column(row, "full")?,
                column(row, "network_full")?,
            ) {
                (true, _, _) => Requested::Stored,
                (false, true, _) => Requested::Full,
                (false, false, true) => Requested::NetworkFull,
                (false, false, false) => Requested::Repeated,
            },
        )
    }

    async fn take_due(
        &self,
        because: SystemScope,
        now: Time,
    ) -> Result<Option<WorkspaceRequest>, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        let arguments = [now.into(), (now + WorkspaceRequest::LEASE).into()];
        let rows = tx.fetch_fixed(TAKE_DUE, arguments).await?;
        tx.commit().await?;
        rows.first().map(request).transpose()
    }

    async fn put_off(
        &self,
        because: SystemScope,
        request: &WorkspaceRequest,
        due_at: Time,
    ) -> Result<(), StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        tx.fetch_fixed(PUT_OFF, [request.id.into(), due_at.into()])
            .await?;
        tx.commit().await
    }

    async fn settle(
        &self,
        because: SystemScope,
        request: &WorkspaceRequest,
        now: Time,
    ) -> Result<(), StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        tx.fetch_fixed(SETTLE, [request.id.into(), now.into()]).await?;
        tx.commit().await
    }

    async fn delete_settled(&self, because: SystemScope, until: Time) -> Result<u64, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        let deleted = tx.fetch_fixed(DELETE_SETTLED, [until.into()]).await?;
        tx.commit().await?;
        Ok(deleted.len() as u64)
    }

    async fn list(
        &self,
        because: SystemScope,
        email: &Email,
        limit: usize,
    ) -> Result<Vec<Workspace>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let rows = tx
            .fetch_fixed(LIST, [email.as_str().into(), limit.into()])
            .await?;
        tx.commit().await?;
        rows.iter().map(workspace).collect()
    }
}

/// `$1` id, `$2` address, `$3` now, `$4` network, `$5` how many may be stored, `$6` how many of the network, `$7` until when an answered
/// one makes room. An answered one is replaced, so that none has to be deleted first.
const REQUEST: &str = "\
WITH present AS (SELECT \
 (SELECT count(*) FROM (SELECT FROM workspace_requests LIMIT $5) AS stored) >= $5 AS is_full, \
 (SELECT count(*) FROM (SELECT FROM workspace_requests w WHERE w.network = $4 LIMIT $6) AS of_network) >= $6 AS is_network_full), \
stored AS (\
 INSERT INTO workspace_requests AS r (id, email, requested_at, attempts, due_at, network) \
 SELECT $1, $2, $3, 0, $3, $4 FROM present WHERE NOT is_full AND NOT is_network_full \
 ON CONFLICT (email) DO UPDATE SET id = EXCLUDED.id, requested_at = EXCLUDED.requested_at, attempts = 0, due_at = EXCLUDED.due_at, \
 network = EXCLUDED.network, answered_at = NULL WHERE r.answered_at <= $7 RETURNING id) \
SELECT EXISTS (SELECT FROM stored) AS stored, is_full AS full, is_network_full AS network_full FROM present";

/// `$1` now, `$2` until when no other server takes it up.
const TAKE_DUE: &str = "\
UPDATE workspace_requests SET attempts = attempts + 1, due_at = $2 WHERE id IN (\
SELECT id FROM workspace_requests WHERE due_at <= $1 AND answered_at IS NULL ORDER BY due_at, id LIMIT 1 FOR UPDATE SKIP LOCKED) \
RETURNING id, email, network, requested_at, attempts";

const PUT_OFF: &str = "UPDATE workspace_requests SET due_at = $2 WHERE id = $1 RETURNING id";

/// `$1` id, `$2` now. A server of an earlier release, which would answer it again, never finds it due.
const SETTLE: &str =
    "UPDATE workspace_requests SET answered_at = $2, due_at = 'infinity' WHERE id = $1 RETURNING id";

const DELETE_SETTLED: &str = "DELETE FROM workspace_requests WHERE answered_at <= $1 RETURNING id";

/// `$1` address, `$2` limit. The digest is made as by the trigger that keeps the index.
const LIST: &str = "\
SELECT t.name, t.slug FROM user_addresses a JOIN tenants t ON t.id = a.of_tenant \
WHERE a.address_digest = sha256(convert_to($1, 'UTF8')) AND t.status IN ('active', 'suspended') \
ORDER BY t.name, t.slug LIMIT $2";

fn request(row: &QueryResult) -> Result<WorkspaceRequest, StoreError> {
    let attempts: i32 = column(row, "attempts")?;
    Ok(WorkspaceRequest {
        id: column(row, "id")?,
        email: Email::stored(column(row, "email")?),
        network: column(row, "network")?,
        requested_at: column(row, "requested_at")?,
        attempts: attempts.unsigned_abs(),
    })
}

fn workspace(row: &QueryResult) -> Result<Workspace, StoreError> {
    Ok(Workspace {
        name: column(row, "name")?,
        slug: column(row, "slug")?,
    })
}
