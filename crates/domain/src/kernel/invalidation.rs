use serde::{Deserialize, Serialize};

use crate::kernel::{ApiKeyId, TenantId, UserId};

/// A change of stored facts that caches hold: parts of scopes and of configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A tenant's state, plan or names.
    Tenant(TenantId),
    /// A user's role, state or sessions.
    User(TenantId, UserId),
    /// An API key was changed, rotated or revoked.
    ApiKey(TenantId, ApiKeyId),
    /// A tenant's own configuration: its settings, its branding, its overrides of flags.
    Configuration(TenantId),
    /// A part of the configuration of all tenants: the definitions of flags, the versions of plans.
    Catalogue,
}

/// Sends invalidations to the caches of this process and of other processes.
///
/// The adapter of the store calls it for all that its repositories write, so no use case can omit it. The call follows the
/// commit, also when the outcome of the commit is unknown.
pub trait InvalidationPublisher: Send + Sync {
    /// Invalidates the caches of this process before it returns, and those of other processes soon after.
    fn publish(&self, change: Change);
}

/// For a process without caches.
impl InvalidationPublisher for () {
    fn publish(&self, _: Change) {}
}

/// A cache of stored facts.
pub trait InvalidatedCache: Send + Sync {
    /// Drops the cached values that the change concerns.
    fn invalidate(&self, change: Change);

    /// Sets whether invalidations by other processes arrive from now on. When that changes, cached values may be stale.
    fn set_live(&self, live: bool);
}
