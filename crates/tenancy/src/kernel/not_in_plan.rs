use tenantry_domain::billing::{SeatLimit, SeatsOf};
use tenantry_domain::kernel::{AsStoreError, StoreError};

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

impl AsStoreError for AddError {
    fn as_store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            Self::NotInPlan(_) => None,
        }
    }
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
