use async_trait::async_trait;
use serde_json::json;
use tenantry_domain::kernel::{StoreError, SystemScope, TenantId, Time, WebhookEndpointId};
use tenantry_domain::store::Mode;
use tenantry_domain::webhooks::{Backlog, DueLanes, Lane, LaneLease, LaneState, WebhookLanes};
use uuid::Uuid;

use crate::Pool;
use crate::kernel::error::column;
use crate::kernel::store::PgStore;
use crate::kernel::tx::PlatformTx;

/// `$2` the endpoints, as a list in JSON, `$3` when, `$4` the window of a new lane. Rows are locked in the order of the endpoints.
const MAKE_DUE: &str = "\
INSERT INTO webhook_lanes (\"tenant_id\", created_at, endpoint_id, due_at, send_window) \
SELECT $1, $3, x.id::uuid, $3, $4 FROM jsonb_array_elements_text($2::text::jsonb) AS x (id) ORDER BY x.id \
ON CONFLICT (tenant_id, endpoint_id) DO UPDATE SET due_at = least(webhook_lanes.due_at, EXCLUDED.due_at) \
WHERE webhook_lanes.tenant_id = $1 RETURNING id";

/// `$2` now, `$3` how many, `$4` the lease, `$5` its seconds, `$6` lanes with a window up to this one are left out. Due is compared with the clock of the server, and leases with that of the
/// database: a server whose clock is fast takes nothing from others.
const TAKE: &str = "\
WITH free AS (SELECT l.id FROM webhook_lanes l WHERE l.tenant_id = $1 AND l.due_at <= $2 AND (l.not_before IS NULL OR l.not_before <= $2) \
 AND (l.lease_until IS NULL OR l.lease_until < now()) AND l.send_window > $6 ORDER BY l.turn_at NULLS FIRST, l.id LIMIT $3 FOR UPDATE OF l SKIP LOCKED) \
UPDATE webhook_lanes w SET turn_at = $2, lease_id = $4, lease_until = now() + $5 * interval '1 second' FROM free \
WHERE w.tenant_id = $1 AND w.id = free.id RETURNING w.endpoint_id, w.send_window, w.paced_until";

/// `$2` the endpoint, `$3` the lease, `$4` its seconds. A lease that has expired stands as long as no other server has taken the lane.
const HOLD: &str = "\
UPDATE webhook_lanes l SET lease_until = now() + $4 * interval '1 second' \
WHERE l.tenant_id = $1 AND l.endpoint_id = $2 AND l.lease_id = $3 RETURNING l.id";

/// `$2` the endpoint, `$3` the window, `$4` until when the rate is used up, `$5` before when nothing is sent, `$6` now, `$7` whether
/// it is ordered. It runs in a statement after the one that has locked the lane: who queues a delivery later waits for the lock, and makes the
/// lane due afterwards.
const RELEASE: &str = "\
UPDATE webhook_lanes l SET lease_id = NULL, lease_until = NULL, send_window = $3, paced_until = $4, not_before = $5, turn_at = $6, due_at = CASE \
 WHEN $7 THEN (SELECT o.next_attempt_at FROM webhook_deliveries o WHERE o.tenant_id = $1 AND o.endpoint_id = $2 AND o.state = 'pending' \
  ORDER BY o.position, o.id LIMIT 1) \
 ELSE (SELECT d.next_attempt_at FROM webhook_deliveries d WHERE d.tenant_id = $1 AND d.endpoint_id = $2 AND d.state = 'pending' \
  ORDER BY d.next_attempt_at, d.position LIMIT 1) END \
WHERE l.tenant_id = $1 AND l.endpoint_id = $2 RETURNING l.id";

/// `$2` the endpoint, `$3` now.
const WAKE: &str = "\
UPDATE webhook_lanes l SET due_at = $3, not_before = NULL WHERE l.tenant_id = $1 AND l.endpoint_id = $2 RETURNING l.id";

impl PgStore {
    /// Makes the lanes of endpoints due at a time, and creates those that are not there.
    pub(crate) async fn make_due(&mut self, endpoints: &[Uuid], at: Time) -> Result<(), StoreError> {
        if endpoints.is_empty() {
            return Ok(());
        }
        let window = i64::from(LaneState::NEW);
        let arguments = [json!(endpoints).to_string().into(), at.into(), window.into()];
        self.tx.fetch_all_fixed(MAKE_DUE, arguments).await.map(drop)
    }
}

#[async_trait]
impl WebhookLanes for PgStore {
    async fn take(
        &mut self,
        lease: LaneLease,
        (limit, narrow): (u32, bool),
        now: Time,
    ) -> Result<Vec<Lane>, StoreError> {
        let arguments = [
            now.into(),
            i64::from(limit).into(),
            lease.id.into(),
            f64::from(lease.seconds).into(),
            narrowest(narrow).into(),
        ];
        let rows = self.tx.fetch_all_fixed(TAKE, arguments).await?;
        let lane = |row| {
            Ok(Lane {
                endpoint: column::<Uuid>(row, "endpoint_id")?.into(),
                state: LaneState {
                    window: column::<i32>(row, "send_window")?.unsigned_abs(),
                    paced_until: column(row, "paced_until")?,
                    rests_until: None,
                },
            })
        };
        rows.iter().map(lane).collect()
    }

    async fn hold(&mut self, endpoint: WebhookEndpointId, lease: LaneLease) -> Result<bool, StoreError> {
        let arguments = [
            endpoint.uuid().into(),
            lease.id.into(),
            f64::from(lease.seconds).into(),
        ];
        Ok(self.tx.fetch_fixed(HOLD, arguments).await?.is_some())
    }

    async fn release(
        &mut self,
        lane: &Lane,
        (ordered, not_before): (bool, Option<Time>),
        now: Time,
    ) -> Result<(), StoreError> {
        let arguments = [
            lane.endpoint.uuid().into(),
            i64::from(lane.state.window).into(),
            lane.state.paced_until.into(),
            not_before.into(),
            now.into(),
            ordered.into(),
        ];
        self.tx.fetch_fixed(RELEASE, arguments).await.map(drop)
    }

    async fn wake(&mut self, endpoint: WebhookEndpointId, now: Time) -> Result<(), StoreError> {
        let arguments = [endpoint.uuid().into(), now.into()];
        self.tx.fetch_fixed(WAKE, arguments).await.map(drop)
    }
}

/// The window that a lane must be wider than.
fn narrowest(narrow: bool) -> i64 {
    if narrow { 0 } else { i64::from(LaneState::NEW) }
}

/// The lanes of all tenants, as the platform role. It sees neither endpoints nor messages.
#[derive(Debug, Clone)]
pub struct PgDueLanes {
    platform: Pool,
}

impl PgDueLanes {
    /// Over a pool of the platform role.
    pub fn new(platform: Pool) -> Self {
        Self { platform }
    }
}

/// `$1` now, `$2` how many, `$3` the tenants that are left out, as a list in JSON, `$4` lanes with a window up to this one do not count. The index has only the lanes of endpoints with something to
/// send.
const DUE_TENANTS: &str = "\
SELECT l.tenant_id FROM webhook_lanes l JOIN tenants t ON t.id = l.tenant_id \
 WHERE l.due_at <= $1 AND (l.not_before IS NULL OR l.not_before <= $1) AND (l.lease_until IS NULL OR l.lease_until < now()) \
   AND l.send_window > $4 AND t.status IN ('active', 'suspended') \
   AND l.tenant_id NOT IN (SELECT x.id::uuid FROM jsonb_array_elements_text($3::text::jsonb) AS x (id)) \
 GROUP BY l.tenant_id ORDER BY max(l.turn_at) NULLS FIRST, l.tenant_id LIMIT $2";

/// `$1` now.
const BACKLOG: &str = "\
SELECT count(*) AS endpoints, min(l.due_at) AS since FROM webhook_lanes l JOIN tenants t ON t.id = l.tenant_id \
 WHERE l.due_at <= $1 AND t.status IN ('active', 'suspended')";

#[async_trait]
impl DueLanes for PgDueLanes {
    async fn tenants(
        &self,
        because: SystemScope,
        (limit, except, narrow): (u32, &[TenantId], bool),
        now: Time,
    ) -> Result<Vec<TenantId>, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let except = json!(except).to_string();
        let arguments = [
            now.into(),
            i64::from(limit).into(),
            except.into(),
            narrowest(narrow).into(),
        ];
        let rows = tx.fetch_fixed(DUE_TENANTS, arguments).await?;
        tx.commit().await?;
        let tenant = |row| column::<Uuid>(row, "tenant_id").map(TenantId::from);
        rows.iter().map(tenant).collect()
    }

    async fn backlog(&self, because: SystemScope, now: Time) -> Result<Backlog, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let rows = tx.fetch_fixed(BACKLOG, [now.into()]).await?;
        tx.commit().await?;
        let Some(row) = rows.first() else {
            return Ok(Backlog::default());
        };
        Ok(Backlog {
            endpoints: column::<i64>(row, "endpoints")?.unsigned_abs(),
            since: column(row, "since")?,
        })
    }
}
