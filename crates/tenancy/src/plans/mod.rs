//! Plans and their versions, and what a tenant is entitled to.

pub mod entitlement;
mod entitlements;
pub mod plan;

pub use entitlements::{AddError, Countable, Entitlements, Feature, NotInPlan, RequiredPlans, Unlimited};
