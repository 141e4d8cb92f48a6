use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tenantry_domain::kernel::{ApiKeyId, Change, TenantId, Time, UserId};
use uuid::Uuid;

/// How many counters there are. Two keys may share one: then a change of the one is taken for a change of the other,
/// which costs a look into the database and nothing else.
const SLOTS: usize = 4_096;

/// Counts changes, so that a value cached before a change is not used after it.
///
/// A load notes the counters before it begins. Its result is valid while they stand still: a change that was
/// published while the load was under way makes its result stale too, whichever of the two ends first.
pub(crate) struct Epochs {
    slots: Box<[Slot]>,
    /// Any tenant at all, for cached absence; of configurations, what all have in common.
    tenants: AtomicU64,
    /// Any user at all, for what is loaded before it is known which user it depends on.
    users: AtomicU64,
}

#[derive(Default)]
struct Slot {
    changes: AtomicU64,
    /// The time of the last one, in milliseconds since 1970.
    last: AtomicI64,
}

/// What the counters of a key stood at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Epoch(u64, u64);

impl Epoch {
    /// One number that changes when either counter does, since both only grow.
    pub(crate) fn sum(self) -> u64 {
        self.0.wrapping_add(self.1)
    }
}

impl Default for Epochs {
    fn default() -> Self {
        Self {
            slots: std::iter::repeat_with(Slot::default).take(SLOTS).collect(),
            tenants: AtomicU64::new(0),
            users: AtomicU64::new(0),
        }
    }
}

impl Epochs {
    pub(crate) fn advance(&self, change: Change, now: Time) {
        let slot = match change {
            Change::Tenant(tenant) => {
                self.tenants.fetch_add(1, Ordering::SeqCst);
                self.tenant_slot(tenant)
            }
            Change::User(tenant, user) => {
                self.users.fetch_add(1, Ordering::SeqCst);
                self.user_slot(tenant, user)
            }
            Change::ApiKey(tenant, key) => self.key_slot(tenant, key),
            // No scope is made of these.
            Change::Configuration(_) | Change::Catalogue => return,
        };
        slot.last.store(now.timestamp_millis(), Ordering::SeqCst);
        slot.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts a change of what a tenant's configuration is made of.
    pub(crate) fn advance_configuration(&self, change: Change, now: Time) {
        let tenant = match change {
            // Its plan may be another.
            Change::Tenant(tenant) | Change::Configuration(tenant) => tenant,
            Change::Catalogue => {
                self.tenants.fetch_add(1, Ordering::SeqCst);
                return;
            }
            Change::User(..) | Change::ApiKey(..) => return,
        };
        let slot = self.tenant_slot(tenant);
        slot.last.store(now.timestamp_millis(), Ordering::SeqCst);
        slot.changes.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn of_configuration(&self, tenant: TenantId) -> Epoch {
        Epoch(
            self.tenant_slot(tenant).changes.load(Ordering::SeqCst),
            self.of_all_tenants(),
        )
    }

    pub(crate) fn of_tenant(&self, tenant: TenantId) -> Epoch {
        Epoch(self.tenant_slot(tenant).changes.load(Ordering::SeqCst), 0)
    }

    pub(crate) fn of_user(&self, tenant: TenantId, user: UserId) -> Epoch {
        let slots = (self.tenant_slot(tenant), self.user_slot(tenant, user));
        Epoch(
            slots.0.changes.load(Ordering::SeqCst),
            slots.1.changes.load(Ordering::SeqCst),
        )
    }

    pub(crate) fn of_api_key(&self, tenant: TenantId, key: ApiKeyId) -> Epoch {
        let slots = (self.tenant_slot(tenant), self.key_slot(tenant, key));
        Epoch(
            slots.0.changes.load(Ordering::SeqCst),
            slots.1.changes.load(Ordering::SeqCst),
        )
    }

    pub(crate) fn of_all_users(&self) -> u64 {
        self.users.load(Ordering::SeqCst)
    }

    pub(crate) fn of_all_tenants(&self) -> u64 {
        self.tenants.load(Ordering::SeqCst)
    }

    /// Milliseconds since a tenant, or one of its users, last changed; very many when never.
    pub(crate) fn quiet_for(&self, tenant: TenantId, user: Option<UserId>, now: Time) -> i64 {
        let of_user = user.map(|user| self.user_slot(tenant, user).last.load(Ordering::SeqCst));
        let of_tenant = self.tenant_slot(tenant).last.load(Ordering::SeqCst);
        now.timestamp_millis()
            .saturating_sub(of_user.map_or(of_tenant, |of_user| of_user.max(of_tenant)))
    }

    /// Milliseconds since an API key itself last changed; very many when never.
    pub(crate) fn key_quiet_for(&self, tenant: TenantId, key: ApiKeyId, now: Time) -> i64 {
        let last = self.key_slot(tenant, key).last.load(Ordering::SeqCst);
        now.timestamp_millis().saturating_sub(last)
    }

    fn key_slot(&self, tenant: TenantId, key: ApiKeyId) -> &Slot {
        self.user_slot(tenant, key.uuid().into())
    }

    fn tenant_slot(&self, tenant: TenantId) -> &Slot {
        self.slot(tenant.uuid())
    }

    fn user_slot(&self, tenant: TenantId, user: UserId) -> &Slot {
        let (tenant, user) = (tenant.uuid().as_u128(), user.uuid().as_u128());
        self.slot(Uuid::from_u128(tenant.rotate_left(64) ^ user))
    }

    /// The last bits of an id are the random ones; of two ids of one moment the first are the same.
    fn slot(&self, id: Uuid) -> &Slot {
        let (high, low) = id.as_u64_pair();
        let mixed = (high ^ low).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 52;
        &self.slots[usize::try_from(mixed).unwrap_or(0) % SLOTS]
    }
}
