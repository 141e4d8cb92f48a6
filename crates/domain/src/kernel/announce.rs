use serde::{Deserialize, Serialize};

use crate::kernel::{ApiKeyId, TenantId, UserId};

/// Stored facts that scopes and configurations are made of have changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A tenant's state, plan or names.
    Tenant(TenantId),
    /// A user's role, state or sessions.
    User(TenantId, UserId),
    /// A key was changed, rotated or revoked.
    ApiKey(TenantId, ApiKeyId),
    /// A tenant's own configuration: its settings, its branding, its overrides of flags.
    Configuration(TenantId),
    /// What all tenants' configuration is made of: the definitions of flags, the versions of plans.
    Catalogue,
}

/// Tells everybody who remembers stored facts that they have changed.
///
/// The adapter of the store calls it, for whatever its repositories have written, so that no use case can forget to. It
/// is called after the change was committed, and also when nobody knows whether it was.
pub trait Announcer: Send + Sync {
    /// Takes effect in this process before it returns; elsewhere soon after.
    fn announce(&self, change: Change);
}

/// For a process that remembers nothing.
impl Announcer for () {
    fn announce(&self, _: Change) {}
}

/// Whoever remembers stored facts.
pub trait Memory: Send + Sync {
    /// What is remembered of it must not be used any more.
    fn forget(&self, change: Change);

    /// Whether changes that others make are heard of from now on. What was remembered while they were not may be wrong.
    fn hears(&self, others: bool);
}
