//! Plans: the catalogue and its versions, prices and rates; which plan a tenant has; what it is entitled to; its seats.
//!
//! [`entitlement::PlanEntitlements`] is what tenancy asks for features, limits and seats. Terms of a version never change:
//! a tenant keeps what it bought until it changes its plan or an operator does.
//!
//! May use: `kernel`, `usage`.

mod catalogue;
pub mod entitlement;
mod offered;
pub mod plan;
mod plan_book;
mod rates;
pub(crate) mod seats;
mod stated_rates;
mod subscription_change;
pub mod tenant_plan;

pub use catalogue::{PlanError, PlanOverride, Plans};
pub use offered::Plan;
pub use plan_book::PlanBook;
pub use rates::{PlanRates, RateOverride};
pub use stated_rates::RateError;
pub use subscription_change::{Changing, SubscriptionChange};
