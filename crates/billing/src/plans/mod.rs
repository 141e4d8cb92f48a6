//! Plans: the catalogue and its versions, prices and rates, which tenant has which plan, and what a tenant is entitled to.
//!
//! [`entitlement::PlanEntitlements`] is what tenancy asks for features and limits.

mod catalogue;
pub mod entitlement;
mod offered;
pub mod plan;
mod plan_book;
mod rates;

pub use catalogue::{PlanError, PlanOverride, Plans};
pub use offered::Plan;
pub use plan_book::PlanBook;
pub use rates::{PlanRates, RateError, RateOverride};
