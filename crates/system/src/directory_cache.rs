use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tenantry_domain::kernel::{
    ApiKeyId, Change, Clock, InvalidatedCache, SessionId, StoreError, SupportAccessId, TenantId, Time, UserId,
};
use tenantry_domain::tenant::{
    ApiKeyFacts, Directory, DomainName, JobFacts, JobLease, MembershipFacts, Slug, SupportFacts, TenantFacts,
    TenantSelector,
};

use crate::epochs::{Epoch, Epochs};
use crate::freshness::{Freshness, SETTLING_MS};
use crate::single_flight::SingleFlight;

/// The size and the lifetimes of a [`CachedDirectory`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheConfig {
    /// At most so many memberships, as many API keys and as many names of tenants.
    pub entries: u64,
    /// TTL in milliseconds while invalidations of other processes arrive.
    pub ttl_ms: i64,
    /// For how long while they are not, and for what was not found. It bounds how long a revocation made by another
    /// instance goes unnoticed, so it is at most a second where there are several. 0 caches nothing then.
    pub alone_ttl_ms: i64,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            entries: 50_000,
            ttl_ms: 60_000,
            alone_ttl_ms: 1_000,
        }
    }
}

/// A cache before another directory.
///
/// Every request asks for a membership, so this is what keeps it from the database. Keys begin with the tenant. Loads for
/// the same key wait for one another. A loaded value is used until it is invalidated
/// ([`InvalidatedCache::invalidate`]), it expires, or its session has ended; a load that an invalidation overtakes is not used.
pub struct CachedDirectory {
    directory: Arc<dyn Directory>,
    clock: Arc<dyn Clock>,
    epochs: Epochs,
    memberships: SingleFlight<(TenantId, UserId, SessionId), Entry<MembershipFacts, Epoch>>,
    /// The counters of the key, and those of its creator.
    api_keys: SingleFlight<(TenantId, ApiKeyId), Entry<ApiKeyFacts, (Epoch, Epoch)>>,
    tenants: SingleFlight<TenantSelector, Entry<TenantFacts, (u64, Epoch)>>,
    freshness: Freshness,
    counters: Counters,
}

/// What was loaded, and what its counters stood at before.
struct Entry<T, E> {
    found: Result<Option<T>, StoreError>,
    epoch: E,
    loaded_at: Time,
}

#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    loads: AtomicU64,
}

/// Figures of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheStats {
    /// Hits since the start.
    pub hits: u64,
    /// Loads from the database since the start.
    pub loads: u64,
    /// Cached values at present, approximately.
    pub entries: u64,
}

impl std::fmt::Debug for CachedDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CachedDirectory")
            .field("freshness", &self.freshness)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl CachedDirectory {
    /// An empty cache before `directory`. The short TTL applies until [`InvalidatedCache::set_live`] says otherwise.
    pub fn new(directory: Arc<dyn Directory>, clock: Arc<dyn Clock>, config: CacheConfig) -> Self {
        Self {
            directory,
            clock,
            epochs: Epochs::default(),
            memberships: SingleFlight::new(config.entries),
            api_keys: SingleFlight::new(config.entries),
            tenants: SingleFlight::new(config.entries),
            freshness: Freshness::new(config),
            counters: Counters::default(),
        }
    }

    /// How it does.
    pub fn stats(&self) -> CacheStats {
        CacheStats {
            hits: self.counters.hits.load(Ordering::Relaxed),
            loads: self.counters.loads.load(Ordering::Relaxed),
            entries: self.memberships.len() + self.api_keys.len() + self.tenants.len(),
        }
    }

    fn membership_holds(
        &self,
        (tenant, user): (TenantId, UserId),
        entry: &Entry<MembershipFacts, Epoch>,
    ) -> bool {
        let now = self.clock.now();
        let Ok(found) = &entry.found else { return false };
        let in_time = found.as_ref().is_none_or(|facts| now < facts.session_expires_at);
        let quiet_for = self.epochs.quiet_for(tenant, Some(user), now);
        in_time
            && entry.epoch == self.epochs.of_user(tenant, user)
            && self
                .freshness
                .is_young(entry.loaded_at, found.is_some(), quiet_for, now)
    }

    fn api_key_holds(
        &self,
        (tenant, key): (TenantId, ApiKeyId),
        entry: &Entry<ApiKeyFacts, (Epoch, Epoch)>,
    ) -> bool {
        let now = self.clock.now();
        let Ok(found) = &entry.found else { return false };
        let (own, of_creator) = entry.epoch;
        let mut quiet_for = self.epochs.key_quiet_for(tenant, key, now);
        let creator_stands = found.as_ref().is_none_or(|facts| {
            let creator = facts.key.creator;
            quiet_for = quiet_for.min(self.epochs.quiet_for(tenant, Some(creator), now));
            of_creator == self.epochs.of_user(tenant, creator)
        });
        creator_stands
            && own == self.epochs.of_api_key(tenant, key)
            && self
                .freshness
                .is_young(entry.loaded_at, found.is_some(), quiet_for, now)
    }

    fn tenant_holds(&self, entry: &Entry<TenantFacts, (u64, Epoch)>) -> bool {
        let now = self.clock.now();
        let (all, own) = entry.epoch;
        match &entry.found {
            Ok(Some(facts)) => {
                let quiet_for = self.epochs.quiet_for(facts.id, None, now);
                own == self.epochs.of_tenant(facts.id)
                    && self.freshness.is_young(entry.loaded_at, true, quiet_for, now)
            }
            Ok(None) => {
                all == self.epochs.of_all_tenants()
                    && self.freshness.is_young(entry.loaded_at, false, SETTLING_MS, now)
            }
            Err(_) => false,
        }
    }

    async fn load_membership(
        &self,
        (tenant, user, session): (TenantId, UserId, SessionId),
    ) -> Entry<MembershipFacts, Epoch> {
        self.counters.loads.fetch_add(1, Ordering::Relaxed);
        let (epoch, loaded_at) = (self.epochs.of_user(tenant, user), self.clock.now());
        let found = self.directory.membership(tenant, user, session).await;
        Entry {
            found,
            epoch,
            loaded_at,
        }
    }

    /// Whose a key is, is not known before the load, so a change of any user while it is under way makes it stale.
    async fn load_api_key(&self, (tenant, key): (TenantId, ApiKeyId)) -> Entry<ApiKeyFacts, (Epoch, Epoch)> {
        self.counters.loads.fetch_add(1, Ordering::Relaxed);
        let (own, loaded_at) = (self.epochs.of_api_key(tenant, key), self.clock.now());
        let before = self.epochs.of_all_users();
        let found = self.directory.api_key(tenant, key).await;
        let of_creator = match &found {
            Ok(Some(facts)) => self.epochs.of_user(tenant, facts.key.creator),
            Ok(None) | Err(_) => Epoch::default(),
        };
        let overtaken = self.epochs.of_all_users() != before;
        Entry {
            found,
            epoch: (own, of_creator),
            loaded_at: if overtaken { Time::UNIX_EPOCH } else { loaded_at },
        }
    }

    /// Which tenant a name leads to is not known before the load, so a change of any tenant while it is under way makes
    /// it stale.
    async fn load_tenant(&self, selector: &TenantSelector) -> Entry<TenantFacts, (u64, Epoch)> {
        self.counters.loads.fetch_add(1, Ordering::Relaxed);
        let (before, loaded_at) = (self.epochs.of_all_tenants(), self.clock.now());
        let found = self.directory.tenant(selector).await;
        let own = match &found {
            Ok(Some(facts)) => self.epochs.of_tenant(facts.id),
            Ok(None) | Err(_) => Epoch::default(),
        };
        let overtaken = self.epochs.of_all_tenants() != before;
        Entry {
            found,
            epoch: (before, own),
            loaded_at: if overtaken { Time::UNIX_EPOCH } else { loaded_at },
        }
    }

    fn hit(&self) {
        self.counters.hits.fetch_add(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Directory for CachedDirectory {
    async fn tenant(&self, selector: &TenantSelector) -> Result<Option<TenantFacts>, StoreError> {
        if let Some(entry) = self.tenants.get(selector)
            && self.tenant_holds(&entry)
        {
            self.hit();
            return entry.found.clone();
        }
        let began = self.clock.now();
        let (holds, load) = (|entry: &_| self.tenant_holds(entry), self.load_tenant(selector));
        let entry = self.tenants.get_or_load(selector, holds, load).await;
        if entry.found.is_err() || entry.loaded_at >= began || self.tenant_holds(&entry) {
            return entry.found.clone();
        }
        // It was loaded for somebody who came before the last change.
        self.load_tenant(selector).await.found
    }

    fn cached_tenant(&self, selector: &TenantSelector) -> Option<TenantFacts> {
        let entry = self.tenants.get(selector)?;
        if !self.tenant_holds(&entry) {
            return None;
        }
        let found = entry.found.as_ref().ok()?.clone()?;
        self.hit();
        Some(found)
    }

    /// Anybody can have made-up hosts asked about, which would drive out what requests need.
    async fn tenants_by_hosts(
        &self,
        labels: &[Slug],
        domains: &[DomainName],
    ) -> Result<Vec<(TenantSelector, TenantFacts)>, StoreError> {
        self.directory.tenants_by_hosts(labels, domains).await
    }

    /// Whoever goes through many tenants asks for each once, and would drive out what requests need.
    async fn tenants(&self, ids: &[TenantId]) -> Result<Vec<TenantFacts>, StoreError> {
        self.directory.tenants(ids).await
    }

    async fn membership(
        &self,
        tenant: TenantId,
        user: UserId,
        session: SessionId,
    ) -> Result<Option<MembershipFacts>, StoreError> {
        let (key, whose) = ((tenant, user, session), (tenant, user));
        if let Some(entry) = self.memberships.get(&key)
            && self.membership_holds(whose, &entry)
        {
            self.hit();
            return entry.found.clone();
        }
        let began = self.clock.now();
        let holds = |entry: &_| self.membership_holds(whose, entry);
        let load = self.load_membership(key);
        let entry = self.memberships.get_or_load(&key, holds, load).await;
        if entry.found.is_err() || entry.loaded_at >= began || self.membership_holds(whose, &entry) {
            return entry.found.clone();
        }
        // It was loaded for somebody who came before the last change.
        self.load_membership(key).await.found
    }

    async fn api_key(&self, tenant: TenantId, key: ApiKeyId) -> Result<Option<ApiKeyFacts>, StoreError> {
        let which = (tenant, key);
        if let Some(entry) = self.api_keys.get(&which)
            && self.api_key_holds(which, &entry)
        {
            self.hit();
            return entry.found.clone();
        }
        let began = self.clock.now();
        let holds = |entry: &_| self.api_key_holds(which, entry);
        let load = self.load_api_key(which);
        let entry = self.api_keys.get_or_load(&which, holds, load).await;
        if entry.found.is_err() || entry.loaded_at >= began || self.api_key_holds(which, &entry) {
            return entry.found.clone();
        }
        // It was loaded for a request that came before the last change.
        self.load_api_key(which).await.found
    }

    fn caches_api_key(&self, tenant: TenantId, key: ApiKeyId) -> bool {
        let entry = self.api_keys.get(&(tenant, key));
        entry.is_some_and(|entry| self.api_key_holds((tenant, key), &entry))
    }

    /// Operators' accesses are not cached: one that is ended leads nowhere from the next request on, on every server.
    async fn support_access(
        &self,
        tenant: TenantId,
        access: SupportAccessId,
    ) -> Result<Option<SupportFacts>, StoreError> {
        self.directory.support_access(tenant, access).await
    }

    /// Leases are not cached: each is asked for once.
    async fn job(&self, lease: &JobLease) -> Result<Option<JobFacts>, StoreError> {
        self.directory.job(lease).await
    }
}

impl InvalidatedCache for CachedDirectory {
    fn invalidate(&self, change: Change) {
        self.epochs.advance(change, self.clock.now());
    }

    fn set_live(&self, live: bool) {
        self.freshness.set_live(live, self.clock.now());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use chrono::{Duration, TimeZone as _, Utc};
    use tenantry_domain::identity::{ApiKey, NewApiKey};
    use tenantry_domain::kernel::{PermissionRegistry, Role};
    use tenantry_domain::plans::{Agreed, Subscription};
    use tenantry_domain::tenant::TenantStatus;
    use tokio::sync::Semaphore;
    use uuid::Uuid;

    use super::*;

    struct StandingClock(Mutex<Time>);

    impl Clock for StandingClock {
        fn now(&self) -> Time {
            *self.0.lock().unwrap()
        }
    }

    /// What the database says, and when it says it.
    struct Stored {
        answer: Mutex<Result<Option<Role>, StoreError>>,
        asked: AtomicU64,
        /// A load reads the answer first and then waits for one of these.
        may_answer: Semaphore,
        read: Semaphore,
    }

    #[async_trait]
    impl Directory for Stored {
        async fn tenant(&self, selector: &TenantSelector) -> Result<Option<TenantFacts>, StoreError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let there = self.answer.lock().unwrap().clone()?.is_some();
            self.read.add_permits(1);
            self.may_answer.acquire().await.unwrap().forget();
            let facts = facts();
            let named = matches!(selector, TenantSelector::Slug(slug) if *slug == facts.slug);
            Ok((there && named).then_some(facts))
        }

        async fn tenants(&self, _: &[TenantId]) -> Result<Vec<TenantFacts>, StoreError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            Ok(vec![facts()])
        }

        async fn membership(
            &self,
            _: TenantId,
            _: UserId,
            _: SessionId,
        ) -> Result<Option<MembershipFacts>, StoreError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let answer = self.answer.lock().unwrap().clone();
            self.read.add_permits(1);
            self.may_answer.acquire().await.unwrap().forget();
            Ok(answer?.map(|role| MembershipFacts {
                tenant: facts(),
                role,
                narrowing: None,
                is_active: true,
                session_is_live: true,
                session_expires_at: start() + Duration::hours(1),
            }))
        }

        async fn api_key(&self, _: TenantId, id: ApiKeyId) -> Result<Option<ApiKeyFacts>, StoreError> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let answer = self.answer.lock().unwrap().clone();
            self.read.add_permits(1);
            self.may_answer.acquire().await.unwrap().forget();
            let new = NewApiKey {
                name: "CI".into(),
                scopes: vec!["tasks.read".into()],
                expires_at: None,
                allowed_networks: None,
                service_account: false,
            };
            Ok(answer?.map(|role| ApiKeyFacts {
                tenant: facts(),
                key: ApiKey::new(
                    id,
                    user(),
                    [0; 32],
                    (new, &PermissionRegistry::default()),
                    start(),
                )
                .unwrap(),
                creator_role: Some(role),
                creator_narrowing: None,
            }))
        }

        fn caches_api_key(&self, _: TenantId, _: ApiKeyId) -> bool {
            false
        }

        async fn support_access(
            &self,
            _: TenantId,
            _: SupportAccessId,
        ) -> Result<Option<SupportFacts>, StoreError> {
            Ok(None)
        }

        async fn job(&self, _: &JobLease) -> Result<Option<JobFacts>, StoreError> {
            Ok(None)
        }
    }

    fn start() -> Time {
        Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap()
    }

    fn facts() -> TenantFacts {
        TenantFacts {
            id: tenant(),
            slug: Slug::parse("acme").unwrap(),
            subdomain: None,
            subscription: Arc::new(Subscription {
                plan: "pro".into(),
                version: 1,
                agreed: Agreed::default(),
            }),
            status: TenantStatus::Active,
        }
    }

    fn tenant() -> TenantId {
        Uuid::from_u128(1).into()
    }

    fn user() -> UserId {
        Uuid::from_u128(2).into()
    }

    struct World {
        cache: Arc<CachedDirectory>,
        stored: Arc<Stored>,
        clock: Arc<StandingClock>,
    }

    impl World {
        fn new() -> Self {
            let stored = Arc::new(Stored {
                answer: Mutex::new(Ok(Some(Role::Admin))),
                asked: AtomicU64::new(0),
                may_answer: Semaphore::new(1_000),
                read: Semaphore::new(0),
            });
            let clock = Arc::new(StandingClock(Mutex::new(start())));
            let config = CacheConfig::default();
            let directory = Arc::clone(&stored) as Arc<dyn Directory>;
            let cache = CachedDirectory::new(directory, Arc::clone(&clock) as Arc<dyn Clock>, config);
            cache.set_live(true);
            *clock.0.lock().unwrap() += Duration::milliseconds(1);
            Self {
                cache: Arc::new(cache),
                stored,
                clock,
            }
        }

        fn store(&self, answer: Result<Option<Role>, StoreError>) {
            *self.stored.answer.lock().unwrap() = answer;
        }

        fn wait(&self, milliseconds: i64) {
            *self.clock.0.lock().unwrap() += Duration::milliseconds(milliseconds);
        }

        async fn role(&self) -> Result<Option<Role>, StoreError> {
            let session = Uuid::from_u128(3).into();
            let found = self.cache.membership(tenant(), user(), session).await?;
            Ok(found.map(|facts| facts.role))
        }

        async fn there(&self) -> bool {
            let selector = TenantSelector::Slug(Slug::parse("acme").unwrap());
            self.cache.tenant(&selector).await.unwrap().is_some()
        }

        fn asked(&self) -> u64 {
            self.stored.asked.load(Ordering::SeqCst)
        }
    }

    #[tokio::test]
    async fn hosts_are_looked_up_without_a_place_in_the_cache() {
        let world = World::new();
        world.store(Ok(Some(Role::Viewer)));
        let acme = TenantSelector::Slug(Slug::parse("acme").unwrap());
        assert!(world.cache.cached_tenant(&acme).is_none());
        world.stored.may_answer.add_permits(3);
        assert!(world.there().await);
        assert!(world.cache.cached_tenant(&acme).is_some());
        let label = Slug::parse("made-up").unwrap();
        let labels = std::slice::from_ref(&label);
        let found = world.cache.tenants_by_hosts(labels, &[]).await.unwrap();
        assert!(found.is_empty());
        let again = world.cache.tenant(&TenantSelector::Subdomain(label)).await;
        assert_eq!((again, world.asked()), (Ok(None), 3));
        world.cache.invalidate(Change::Tenant(tenant()));
        assert!(world.cache.cached_tenant(&acme).is_none());
    }

    #[tokio::test]
    async fn entries_are_bounded_by_the_settings() {
        let mut world = World::new();
        let config = CacheConfig {
            entries: 10,
            ..CacheConfig::default()
        };
        let directory = Arc::clone(&world.stored) as Arc<dyn Directory>;
        let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
        world.cache = Arc::new(CachedDirectory::new(directory, clock, config));
        for number in 0..500 {
            let session = Uuid::from_u128(number).into();
            world.cache.membership(tenant(), user(), session).await.unwrap();
        }
        assert!(
            (1..=10).contains(&world.cache.stats().entries),
            "{:?}",
            world.cache.stats()
        );
    }

    #[tokio::test]
    async fn values_are_cached_until_they_are_invalidated() {
        let world = World::new();
        for _ in 0..3 {
            assert_eq!(world.role().await, Ok(Some(Role::Admin)));
        }
        assert_eq!(world.asked(), 1);
        for change in [Change::User(tenant(), user()), Change::Tenant(tenant())] {
            let before = world.asked();
            world.cache.invalidate(change);
            world.role().await.unwrap();
            assert_eq!(world.asked(), before + 1, "{change:?}");
        }
        let others = Change::User(Uuid::from_u128(7).into(), Uuid::from_u128(8).into());
        world.cache.invalidate(others);
        let before = world.asked();
        world.role().await.unwrap();
        assert_eq!(world.asked(), before, "a change of somebody else");
        assert_eq!(world.cache.stats().hits, 3);
    }

    #[tokio::test]
    async fn a_load_that_a_change_overtakes_is_used_by_nobody_who_comes_after_the_change() {
        let world = Arc::new(World::new());
        world.stored.may_answer.forget_permits(1_000);
        let early = tokio::spawn({
            let world = Arc::clone(&world);
            async move { world.role().await }
        });
        world.stored.read.acquire().await.unwrap().forget();
        // The load has read the role; now it is changed and announced, and somebody asks for the new one.
        world.store(Ok(Some(Role::Viewer)));
        world.cache.invalidate(Change::User(tenant(), user()));
        world.wait(1);
        let late = tokio::spawn({
            let world = Arc::clone(&world);
            async move { world.role().await }
        });
        tokio::task::yield_now().await;
        world.stored.may_answer.add_permits(1_000);
        assert_eq!(late.await.unwrap(), Ok(Some(Role::Viewer)));
        early.await.unwrap().unwrap();
        assert_eq!(world.role().await, Ok(Some(Role::Viewer)));
    }

    #[tokio::test]
    async fn fifty_who_ask_at_once_cause_one_load() {
        let world = Arc::new(World::new());
        world.stored.may_answer.forget_permits(1_000);
        let asking: Vec<_> = (0..50)
            .map(|_| {
                let world = Arc::clone(&world);
                tokio::spawn(async move { world.role().await })
            })
            .collect();
        world.stored.read.acquire().await.unwrap().forget();
        world.stored.may_answer.add_permits(1);
        for one in asking {
            assert_eq!(one.await.unwrap(), Ok(Some(Role::Admin)));
        }
        assert_eq!(world.asked(), 1);
    }

    #[tokio::test]
    async fn long_ttl_applies_only_while_invalidations_arrive() {
        let world = World::new();
        world.role().await.unwrap();
        world.wait(59_999);
        world.role().await.unwrap();
        assert_eq!(world.asked(), 1);
        world.wait(1);
        world.role().await.unwrap();
        assert_eq!(world.asked(), 2, "a minute is over");
        world.wait(1_000);
        world.cache.set_live(false);
        world.role().await.unwrap();
        assert_eq!(
            world.asked(),
            3,
            "cached for a second already, and invalidations no longer arrive"
        );
        world.wait(999);
        world.role().await.unwrap();
        assert_eq!(world.asked(), 3);
        world.cache.set_live(true);
        world.wait(1);
        world.role().await.unwrap();
        assert_eq!(world.asked(), 4, "changes in between published no invalidation");
        world.wait(10_000);
        world.role().await.unwrap();
        assert_eq!(world.asked(), 4);
    }

    #[tokio::test]
    async fn short_ttl_applies_shortly_after_an_invalidation() {
        let world = World::new();
        world.cache.invalidate(Change::User(tenant(), user()));
        world.role().await.unwrap();
        world.wait(1_000);
        // Whoever announced it may have done so before the commit took effect.
        world.store(Ok(Some(Role::Viewer)));
        assert_eq!(world.role().await, Ok(Some(Role::Viewer)));
        world.wait(SETTLING_MS);
        world.role().await.unwrap();
        assert_eq!(world.asked(), 2);
    }

    #[tokio::test]
    async fn nothing_of_a_session_is_cached_beyond_its_end() {
        let world = World::new();
        world.wait(3_599_998);
        world.role().await.unwrap();
        world.role().await.unwrap();
        assert_eq!(world.asked(), 1);
        world.wait(1);
        world.role().await.unwrap();
        assert_eq!(world.asked(), 2);
    }

    #[tokio::test]
    async fn failures_are_not_cached_and_absence_is_for_a_short_time() {
        let world = World::new();
        let failure = StoreError::Unavailable("gone".into());
        world.store(Err(failure.clone()));
        assert_eq!(world.role().await, Err(failure));
        world.store(Ok(None));
        assert_eq!(world.role().await, Ok(None));
        world.wait(999);
        assert_eq!(world.role().await, Ok(None));
        assert_eq!(world.asked(), 2);
        world.wait(1);
        world.store(Ok(Some(Role::Admin)));
        assert_eq!(world.role().await, Ok(Some(Role::Admin)));
    }

    #[tokio::test]
    async fn a_name_that_leads_nowhere_is_asked_for_again_when_a_tenant_is_founded() {
        let world = World::new();
        world.store(Ok(None));
        assert!(!world.there().await);
        assert!(!world.there().await);
        assert_eq!(world.asked(), 1);
        world.store(Ok(Some(Role::Admin)));
        world.cache.invalidate(Change::Tenant(tenant()));
        assert!(world.there().await);
        assert!(world.there().await);
        assert_eq!(world.asked(), 2);
        world.cache.invalidate(Change::Tenant(tenant()));
        world.there().await;
        assert_eq!(world.asked(), 3);
    }

    #[tokio::test]
    async fn a_clock_that_is_set_back_makes_nothing_younger() {
        let world = World::new();
        world.role().await.unwrap();
        world.wait(-1);
        world.role().await.unwrap();
        assert_eq!(world.asked(), 2);
    }
}
