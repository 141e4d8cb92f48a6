//! What the runs of lanes share: the configuration of the dispatcher, the places for requests and transactions, and whose they are.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tenantry_domain::kernel::{SystemScope, TenantId};
use tenantry_domain::webhooks::{DisablingRule, RetrySchedule, WebhookSender};
use tokio::sync::Semaphore;

use crate::Tenancy;
use crate::webhooks::turns::{TransactionTurns, Turn};

/// For what the dispatcher enters a tenant.
pub(crate) const BECAUSE: SystemScope = SystemScope::because("webhooks are delivered");

/// How a dispatcher works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DispatcherConfig {
    /// How often it looks for what is due. What is queued in this process wakes it at once.
    pub poll: Duration,
    /// How many endpoints are served at once. Each has at most 32 messages in memory.
    pub lanes: usize,
    /// How many of them may be of one tenant.
    pub lanes_per_tenant: usize,
    /// How many requests are in flight.
    pub in_flight: usize,
    /// How many of them may be of one tenant.
    pub in_flight_per_tenant: usize,
    /// How many transactions run at once, one of each tenant: a part of the connections, so that requests find some.
    pub transactions: usize,
    /// After how long without a sign of life an endpoint is taken over by others.
    pub lease: Duration,
    /// After how long an endpoint makes place for another one that waits.
    pub slice: Duration,
    /// How long requests in flight may take to finish at a shutdown.
    pub grace: Duration,
    /// When a message is tried again.
    pub schedule: RetrySchedule,
    /// When an endpoint is disabled.
    pub rule: DisablingRule,
}

impl Default for DispatcherConfig {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(1),
            lanes: 256,
            lanes_per_tenant: 32,
            in_flight: 256,
            in_flight_per_tenant: 64,
            transactions: 2,
            lease: Duration::from_secs(30),
            slice: Duration::from_secs(2),
            grace: Duration::from_secs(10),
            schedule: RetrySchedule::default(),
            rule: DisablingRule::default(),
        }
    }
}

/// The places of a dispatcher.
pub(crate) struct Places {
    pub(crate) app: Arc<Tenancy>,
    pub(crate) sender: Arc<dyn WebhookSender>,
    pub(crate) config: DispatcherConfig,
    pub(crate) in_flight: Arc<Semaphore>,
    /// The part of them for narrow lanes: half.
    pub(crate) narrow_in_flight: Arc<Semaphore>,
    narrow_lanes: AtomicUsize,
    transactions: TransactionTurns,
    shares: Mutex<HashMap<TenantId, Share>>,
    /// Whether endpoints wait for a place.
    is_crowded: AtomicBool,
    is_stopping: AtomicBool,
}

/// What a tenant has of the places.
struct Share {
    lanes: usize,
    in_flight: Arc<Semaphore>,
}

impl Places {
    pub(crate) fn new(app: Arc<Tenancy>, sender: Arc<dyn WebhookSender>, config: DispatcherConfig) -> Self {
        Self {
            app,
            sender,
            in_flight: Arc::new(Semaphore::new(config.in_flight.max(1))),
            narrow_in_flight: Arc::new(Semaphore::new((config.in_flight / 2).max(1))),
            narrow_lanes: AtomicUsize::new(0),
            transactions: TransactionTurns::new(config.transactions),
            config,
            shares: Mutex::default(),
            is_crowded: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
        }
    }

    /// No request is begun any more.
    pub(crate) fn stop(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// Whether no request may be begun any more.
    pub(crate) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn set_crowded(&self, is_crowded: bool) {
        self.is_crowded.store(is_crowded, Ordering::Relaxed);
    }

    /// Whether endpoints wait for a place.
    pub(crate) fn is_crowded(&self) -> bool {
        self.is_crowded.load(Ordering::Relaxed)
    }

    /// Whether other endpoints wait for a place that this tenant's could have.
    pub(crate) fn is_crowded_for(&self, tenant: TenantId) -> bool {
        self.is_crowded() || self.left_of(tenant) == 0
    }

    /// Waits for the turn of a tenant to run a transaction. It ends with the returned value.
    pub(crate) async fn transaction(&self, tenant: TenantId) -> Turn<'_> {
        self.transactions.take(tenant).await
    }

    /// The requests of a tenant that may be in flight.
    pub(crate) fn requests_of(&self, tenant: TenantId) -> Arc<Semaphore> {
        let each = self.config.in_flight_per_tenant.max(1);
        let mut shares = self.shares();
        let share = shares.entry(tenant).or_insert_with(|| Share {
            lanes: 0,
            in_flight: Arc::new(Semaphore::new(each)),
        });
        Arc::clone(&share.in_flight)
    }

    /// How many more lanes of a tenant may run.
    pub(crate) fn left_of(&self, tenant: TenantId) -> usize {
        let running = self.shares().get(&tenant).map_or(0, |share| share.lanes);
        self.config.lanes_per_tenant.max(1).saturating_sub(running)
    }

    /// The tenants of which no more lanes may run.
    pub(crate) fn full_tenants(&self) -> Vec<TenantId> {
        let most = self.config.lanes_per_tenant.max(1);
        let shares = self.shares();
        let full = shares.iter().filter(|(_, share)| share.lanes >= most);
        full.map(|(tenant, _)| *tenant).collect()
    }

    /// Whether narrow lanes may be taken: they have half of the places.
    pub(crate) fn takes_narrow(&self) -> bool {
        self.narrow_lanes.load(Ordering::Relaxed) < (self.config.lanes / 2).max(1)
    }

    /// Takes a place for a lane of a tenant, until the returned value is dropped.
    pub(crate) fn enter(self: &Arc<Self>, tenant: TenantId, is_narrow: bool) -> LanePlace {
        self.narrow_lanes
            .fetch_add(usize::from(is_narrow), Ordering::Relaxed);
        self.requests_of(tenant);
        if let Some(share) = self.shares().get_mut(&tenant) {
            share.lanes += 1;
        }
        LanePlace {
            places: Arc::clone(self),
            tenant,
            is_narrow,
        }
    }

    fn shares(&self) -> MutexGuard<'_, HashMap<TenantId, Share>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of a lane among those of its tenant.
pub(crate) struct LanePlace {
    places: Arc<Places>,
    tenant: TenantId,
    is_narrow: bool,
}

impl Drop for LanePlace {
    fn drop(&mut self) {
        let places = &self.places;
        places
            .narrow_lanes
            .fetch_sub(usize::from(self.is_narrow), Ordering::Relaxed);
        let mut shares = places.shares();
        if let Some(share) = shares.get_mut(&self.tenant) {
            share.lanes = share.lanes.saturating_sub(1);
            if share.lanes == 0 {
                shares.remove(&self.tenant);
            }
        }
    }
}
