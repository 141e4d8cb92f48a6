use async_trait::async_trait;
use tenantry_domain::events::EventExports;
use tenantry_domain::kernel::StoreError;
use uuid::Uuid;

use crate::kernel::error::column;
use crate::kernel::store::PgStore;

/// `$2` the lease, `$3` for how many seconds.
const LEASE: &str = "\
UPDATE event_progress p SET lease_id = $2, lease_until = now() + make_interval(secs => $3) \
WHERE p.tenant_id = $1 AND p.exported < p.published AND (p.lease_until IS NULL OR p.lease_until < now()) \
RETURNING p.exported, p.published";

/// `$2` the lease, `$3` up to which position.
const ACKNOWLEDGE: &str = "\
UPDATE event_progress p SET exported = $3, lease_id = NULL, lease_until = NULL \
WHERE p.tenant_id = $1 AND p.lease_id = $2 RETURNING p.id";

/// `$2` behind which position. A batch that is being exported is not acknowledged any more.
const REWIND: &str = "\
UPDATE event_progress p SET exported = least(p.exported, $2), lease_id = NULL, lease_until = NULL \
WHERE p.tenant_id = $1 RETURNING p.published - p.exported AS waiting";

/// `$2` the lease.
const RELEASE: &str = "\
UPDATE event_progress p SET lease_id = NULL, lease_until = NULL WHERE p.tenant_id = $1 AND p.lease_id = $2 RETURNING p.id";

#[async_trait]
impl EventExports for PgStore {
    async fn lease(&mut self, lease: Uuid, seconds: i64) -> Result<Option<(i64, i64)>, StoreError> {
        // The number of seconds is a double precision of PostgreSQL.
        let seconds = seconds as f64;
        let row = self.tx.fetch_fixed(LEASE, [lease.into(), seconds.into()]).await?;
        let range = |row| Ok((column(&row, "exported")?, column(&row, "published")?));
        row.map(range).transpose()
    }

    async fn acknowledge(&mut self, lease: Uuid, position: i64) -> Result<bool, StoreError> {
        let arguments = [lease.into(), position.into()];
        let row = self.tx.fetch_fixed(ACKNOWLEDGE, arguments).await?;
        Ok(row.is_some())
    }

    async fn rewind(&mut self, behind: i64) -> Result<u64, StoreError> {
        let row = self.tx.fetch_fixed(REWIND, [behind.into()]).await?;
        let waiting: i64 = row.map_or(Ok(0), |row| column(&row, "waiting"))?;
        Ok(waiting.unsigned_abs())
    }

    async fn release(&mut self, lease: Uuid) -> Result<(), StoreError> {
        self.tx.fetch_fixed(RELEASE, [lease.into()]).await.map(drop)
    }
}
