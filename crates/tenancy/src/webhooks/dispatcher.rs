//! The dispatcher: finds tenants whose endpoints have something due, leases the lanes of these endpoints, and runs them side by side.
//!
//! It is a loop beside the worker of jobs and not a job for each delivery: a lane reads and stores many deliveries in one transaction. No
//! transaction is open while a request is. Places are bounded for the process, for each tenant and for each endpoint, so that one slow
//! endpoint delays no other, and one tenant no other. Endpoints that are slow have half of the places, so that many of them do not either.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::iter;
use tenantry_domain::kernel::{Permission, StoreError, TenantId};
use tenantry_domain::tenant::Capability;
use tenantry_domain::webhooks::LaneLease;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::webhooks::lane::{LaneRun, Loaded, load};
pub use crate::webhooks::places::DispatcherConfig;
use crate::webhooks::places::{BECAUSE, Places};
use crate::{Cx, Tenancy};

/// How many tenants a round looks at.
const TENANTS: usize = 100;

/// How many lanes of a tenant a round takes, so that the first tenants do not take the places of all others.
const LANES_AT_ONCE: usize = 4;

/// How often the backlog is measured.
const MEASURED_EVERY: Duration = Duration::from_secs(10);

/// Sends the queued messages of all tenants. Any number of processes may have one.
pub struct Dispatcher {
    places: Arc<Places>,
}

impl std::fmt::Debug for Dispatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dispatcher")
            .field("config", &self.places.config)
            .finish_non_exhaustive()
    }
}

impl Dispatcher {
    /// A dispatcher; `None` where the ports have no sender.
    pub fn new(app: Arc<Tenancy>, config: DispatcherConfig) -> Option<Self> {
        let sender = app.ports.webhook_sender.clone()?;
        let places = Arc::new(Places::new(app, sender, config));
        Some(Self { places })
    }

    /// Sends what is due until nothing is. Returns how many lanes were run.
    pub async fn run_once(&self) -> usize {
        let (mut lanes, mut run) = (JoinSet::new(), 0);
        loop {
            self.fill(&mut lanes).await;
            if lanes.is_empty() {
                return run;
            }
            run += lanes.len();
            while lanes.join_next().await.is_some() {}
        }
    }

    /// Sends what is due until it is told to stop. Then it begins no request, and waits for those in flight.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let config = &self.places.config;
        let signals = self.places.app.delivery_signals();
        let mut shutdown = pin!(shutdown);
        let (mut lanes, mut measure_at) = (JoinSet::new(), Instant::now());
        loop {
            if Instant::now() >= measure_at {
                self.measure().await;
                measure_at = Instant::now() + MEASURED_EVERY;
            }
            // A round takes few lanes of each tenant, so there may be more for the places that are left.
            while self.fill(&mut lanes).await && lanes.len() < config.lanes {}
            let is_crowded = self.places.is_crowded();
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                () = signals.queued() => {}
                // The next look is for several places at once.
                () = joined(&mut lanes, config.lanes / 8), if is_crowded && !lanes.is_empty() => {}
                () = sleep(config.poll) => {}
            }
            while lanes.try_join_next().is_some() {}
        }
        self.places.stop();
        let deadline = Instant::now() + config.grace;
        while !lanes.is_empty() {
            tokio::select! {
                _ = lanes.join_next() => {}
                () = sleep_until(deadline) => break,
            }
        }
        // The leases of what is cut here expire. Its messages are sent again.
        lanes.shutdown().await;
    }

    /// Begins to serve endpoints that wait, as far as there are places. Returns whether it has begun any and there may be more.
    async fn fill(&self, lanes: &mut JoinSet<()>) -> bool {
        let places = &self.places;
        let (before, most) = (lanes.len(), places.config.lanes.max(1));
        let free = most.saturating_sub(before);
        let limit = free.min(TENANTS);
        if limit == 0 {
            places.set_crowded(true);
            return false;
        }
        let tenants = match self.tenants(limit).await {
            Ok(tenants) => tenants,
            Err(error) => {
                tracing::warn!(%error, "tenants with webhooks to deliver could not be found, trying again");
                return false;
            }
        };
        let mut is_more = tenants.len() == limit;
        let taken = iter(tenants).map(|tenant| self.take_in(tenant, LANES_AT_ONCE.min(free)));
        let mut taken = pin!(taken.buffer_unordered(places.config.transactions.max(1)));
        while let Some(runs) = taken.next().await {
            is_more |= runs.len() == LANES_AT_ONCE;
            for run in runs {
                let place = places.enter(run.tenant(), run.is_narrow());
                lanes.spawn(async move {
                    run.run().await;
                    drop(place);
                });
            }
        }
        places.set_crowded(is_more && lanes.len() >= most);
        is_more && lanes.len() > before
    }

    async fn tenants(&self, limit: usize) -> Result<Vec<TenantId>, StoreError> {
        let (ports, full) = (&self.places.app.ports, self.places.full_tenants());
        ports
            .due_lanes
            .tenants(
                BECAUSE,
                (rows(limit), &full, self.places.takes_narrow()),
                ports.clock.now(),
            )
            .await
    }

    /// Leases lanes of a tenant and reads what is due of each.
    async fn take_in(&self, tenant: TenantId, limit: usize) -> Vec<LaneRun> {
        let taken = async {
            let cx = match Cx::enter(&self.places.app, BECAUSE, tenant).await? {
                Some(cx) if cx.scope().allows(Capability::Webhooks) => cx,
                Some(_) | None => return Ok(Vec::new()),
            };
            self.take_lanes(&cx, limit).await
        };
        taken.await.unwrap_or_else(|error: StoreError| {
            tracing::warn!(%tenant, %error, "webhooks could not be read, trying again");
            Vec::new()
        })
    }

    async fn take_lanes(&self, cx: &Cx, limit: usize) -> Result<Vec<LaneRun>, StoreError> {
        // Only the system gets here; a scope without the permission sends nothing.
        if cx.require(Permission::KeepEvents).is_err() {
            return Ok(Vec::new());
        }
        let limit = limit.min(self.places.left_of(cx.scope().tenant()));
        if limit == 0 {
            return Ok(Vec::new());
        }
        let lasts = self.places.config.lease;
        let lease = LaneLease {
            id: cx.ids().uuid(),
            seconds: u32::try_from(lasts.as_secs()).unwrap_or(u32::MAX).max(1),
        };
        let _turn = self.places.transaction(cx.scope().tenant()).await;
        let valid_until = Instant::now() + lasts;
        let taken: Vec<(_, Loaded)> = cx
            .write_behind(async |work| {
                let now = cx.now();
                let mut taken = Vec::new();
                let taking = (rows(limit), self.places.takes_narrow());
                for lane in work.webhook_lanes().take(lease, taking, now).await? {
                    let found = work.webhook_endpoints().find(lane.endpoint).await;
                    match found {
                        Ok(found) => taken.push((lane, load(cx, work, (&lane, found), &[]).await?)),
                        // A row that cannot be decoded stops its own endpoint, whose lease expires, and no other.
                        Err(StoreError::Other(error)) => {
                            tracing::error!(endpoint = %lane.endpoint, %error, "a webhook endpoint cannot be read");
                        }
                        Err(error) => return Err(error),
                    }
                }
                Ok::<_, StoreError>(taken)
            })
            .await?;
        let run = |(lane, loaded)| LaneRun::new(&self.places, cx, (lane, lease, valid_until), loaded);
        Ok(taken.into_iter().map(run).collect())
    }

    async fn measure(&self) {
        let ports = &self.places.app.ports;
        match ports.due_lanes.backlog(BECAUSE, ports.clock.now()).await {
            Ok(backlog) => self.places.app.delivery_signals().measured(backlog),
            Err(error) => tracing::warn!(%error, "due webhooks could not be counted"),
        }
    }
}

/// Waits until so many lanes have ended, or all.
async fn joined(lanes: &mut JoinSet<()>, count: usize) {
    for _ in 0..count.max(1) {
        if lanes.join_next().await.is_none() {
            return;
        }
    }
}

fn rows(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
