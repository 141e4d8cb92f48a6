use async_trait::async_trait;
use sea_orm::QueryResult;
use tenantry_domain::identity::{Email, Workspace, WorkspaceRequest, Workspaces};
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
    async fn request(&self, because: SystemScope, request: &WorkspaceRequest) -> Result<bool, StoreError> {
        let arguments = [
            request.id.into(),
            request.email.as_str().into(),
            request.requested_at.into(),
            i64::from(WorkspaceRequest::MOST).into(),
        ];
        let mut tx = PlatformTx::begin_for_guest(&self.platform, because, Mode::Write).await?;
        let stored = tx.fetch_fixed(REQUEST, arguments).await?;
        tx.commit().await?;
        Ok(!stored.is_empty())
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

    async fn delete(&self, because: SystemScope, request: &WorkspaceRequest) -> Result<(), StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        tx.fetch_fixed(DELETE, [request.id.into()]).await?;
        tx.commit().await
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

/// `$1` id, `$2` address, `$3` now, `$4` how many may wait: a row, when it was stored.
const REQUEST: &str = "\
INSERT INTO workspace_requests (id, email, requested_at, attempts, due_at) \
SELECT $1, $2, $3, 0, $3 WHERE (SELECT count(*) FROM (SELECT FROM workspace_requests LIMIT $4) AS waiting) < $4 \
ON CONFLICT (email) DO NOTHING RETURNING id";

/// `$1` now, `$2` until when no other server takes it up.
const TAKE_DUE: &str = "\
UPDATE workspace_requests SET attempts = attempts + 1, due_at = $2 WHERE id IN (\
SELECT id FROM workspace_requests WHERE due_at <= $1 ORDER BY due_at, id LIMIT 1 FOR UPDATE SKIP LOCKED) \
RETURNING id, email, requested_at, attempts";

const PUT_OFF: &str = "UPDATE workspace_requests SET due_at = $2 WHERE id = $1 RETURNING id";

const DELETE: &str = "DELETE FROM workspace_requests WHERE id = $1 RETURNING id";

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
