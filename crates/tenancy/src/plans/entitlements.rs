//! The port of entitlements: what a use case asks before it uses a feature of a plan or adds something that a plan limits.

use async_trait::async_trait;
use tenantry_domain::billing::{SeatLimit, SeatsOf};
use tenantry_domain::kernel::StoreError;
use tenantry_domain::store::Work;

use crate::Cx;
use crate::kernel::context::carries_store_error;

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
}

impl Countable {
    /// Everything that is counted.
    pub const ALL: [Self; 2] = [Self::Users, Self::Projects];

    /// The limit's name in the plan catalogue.
    pub const fn limit(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Projects => "projects",
        }
    }
}

/// The plan does not allow it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotInPlan {
    /// A feature that the plan does not switch on.
    #[error("the plan '{}' does not include {feature}{}", .plans.current, .plans.advice("includes it", "include it"))]
    Feature {
        /// Name of the missing feature.
        feature: &'static str,
        /// The tenant's plan, and those with the feature.
        plans: RequiredPlans,
    },
    /// Every seat that is paid, or will be when what is under way is done, is taken.
    #[error("{}, and active users and open invitations take {used}; {}, deactivate a user or revoke an invitation", has_seats(*.allowed), remedy(.allowed.of))]
    Seats {
        /// How many seats there are, and of what.
        allowed: SeatLimit,
        /// How many active users and open invitations there are.
        used: u64,
        /// The tenant's plan.
        current: String,
    },
    /// More than the plan allows.
    #[error("the plan '{}' allows {allowed} {limit}, and there are {used}{}", .plans.current, .plans.advice("allows more", "allow more"))]
    Limit {
        /// The limit's name.
        limit: &'static str,
        /// How much the plan allows.
        allowed: u64,
        /// How much there is.
        used: u64,
        /// The tenant's plan, and those that allow more.
        plans: RequiredPlans,
    },
}

fn has_seats(allowed: SeatLimit) -> String {
    let seats = match allowed.seats {
        1 => "1 seat".to_owned(),
        seats => format!("{seats} seats"),
    };
    match allowed.of {
        SeatsOf::Subscription => format!("the subscription has {seats}"),
        SeatsOf::Change => format!("a change to {seats} is in progress"),
        SeatsOf::Checkout => format!("a checkout for {seats} is open"),
        SeatsOf::UnpaidSubscription => format!("a subscription with {seats} awaits its first payment"),
    }
}

const fn remedy(of: SeatsOf) -> &'static str {
    match of {
        SeatsOf::Subscription => "pay for more seats",
        SeatsOf::Change => "change to more seats once it is done",
        SeatsOf::Checkout | SeatsOf::UnpaidSubscription => "begin a checkout for more seats",
    }
}

/// The plan of a tenant that does not do, and those that would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequiredPlans {
    /// The tenant's.
    pub current: String,
    /// Those on offer that would do, the least first; none where there is no such plan.
    pub required: Vec<String>,
}

impl RequiredPlans {
    fn advice(&self, one: &str, more: &str) -> String {
        match self.required.as_slice() {
            [] => String::new(),
            [only] => format!("; '{only}' {one}"),
            several => format!("; '{}' {more}", several.join("' and '")),
        }
    }
}

/// Why nothing could be added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The plan allows no more.
    #[error(transparent)]
    NotInPlan(#[from] NotInPlan),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
carries_store_error!(AddError);
