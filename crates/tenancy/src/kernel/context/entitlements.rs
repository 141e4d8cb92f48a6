//! The port of entitlements: what a use case asks before it uses a feature of a plan or adds something that a plan limits.

use async_trait::async_trait;
use tenantry_domain::store::Work;

use crate::kernel::context::Cx;
use crate::kernel::not_in_plan::{AddError, NotInPlan};

/// Decides what a tenant may use, and how much it may add.
#[async_trait]
pub trait Entitlements: Send + Sync {
    /// Checks that the tenant has a feature. It is called with every request that needs one, and waits for nothing.
    ///
    /// # Errors
    /// [`NotInPlan::Feature`].
    fn require_feature(&self, cx: &Cx, feature: Feature) -> Result<(), NotInPlan>;

    /// Checks that the tenant may have one more, and for a user also that a seat is free. It runs in the transaction that
    /// adds it, before it is added. Two callers at the last place are serialized by the lock of the tenant's row: the second one
    /// counts what the first one has added.
    ///
    /// # Errors
    /// [`AddError`].
    async fn require_one_more(&self, cx: &Cx, work: &mut Work, what: Countable) -> Result<(), AddError>;

    /// Checks that a seat is free for one more active user. It runs in a transaction that holds the lock of the tenant's row.
    ///
    /// # Errors
    /// [`AddError`].
    async fn require_seat(&self, cx: &Cx, work: &mut Work) -> Result<(), AddError>;

    /// Checks that the tenant, which stores `used` bytes, may store `more`.
    ///
    /// # Errors
    /// [`NotInPlan::Limit`].
    fn require_storage(&self, cx: &Cx, used: u64, more: u64) -> Result<(), NotInPlan>;
}

/// Every tenant has every feature and no limit: for a service without billing.
#[derive(Debug, Clone, Copy)]
pub struct Unlimited;

#[async_trait]
impl Entitlements for Unlimited {
    fn require_feature(&self, _: &Cx, _: Feature) -> Result<(), NotInPlan> {
        Ok(())
    }

    async fn require_one_more(&self, _: &Cx, _: &mut Work, _: Countable) -> Result<(), AddError> {
        Ok(())
    }

    async fn require_seat(&self, _: &Cx, _: &mut Work) -> Result<(), AddError> {
        Ok(())
    }

    fn require_storage(&self, _: &Cx, _: u64, _: u64) -> Result<(), NotInPlan> {
        Ok(())
    }
}

impl Cx {
    /// The check of a use case whose feature not every plan has; after [`Cx::require`].
    ///
    /// # Errors
    /// [`NotInPlan::Feature`].
    pub fn require_feature(&self, feature: Feature) -> Result<(), NotInPlan> {
        self.ports().entitlements.require_feature(self, feature)
    }
}

/// A feature that plans switch on, by the name that the plan catalogue has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Feature(pub &'static str);

impl Feature {
    /// The tenant's own logo, colours and style.
    pub const BRANDING: Self = Self("branding");
    /// Exports of the audit log.
    pub const AUDIT_EXPORT: Self = Self("audit_export");
    /// Host names of the tenant's own.
    pub const CUSTOM_DOMAIN: Self = Self("custom_domain");
    /// Roles that the tenant defines.
    pub const CUSTOM_ROLES: Self = Self("custom_roles");
}

/// What is counted against a limit of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Countable {
    /// Users that are not deleted, and open invitations.
    Users,
    /// Projects that are not deleted.
    Projects,
    /// Custom domains that are not released.
    Domains,
    /// Endpoints of webhooks, also those that are disabled.
    WebhookEndpoints,
}

impl Countable {
    /// Everything that is counted.
    pub const ALL: [Self; 4] = [Self::Users, Self::Projects, Self::Domains, Self::WebhookEndpoints];

    /// The limit's name in the plan catalogue.
    pub const fn limit(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Projects => "projects",
            Self::Domains => "domains",
            Self::WebhookEndpoints => "webhook_endpoints",
        }
    }
}
