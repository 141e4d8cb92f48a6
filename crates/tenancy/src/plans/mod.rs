//! The port of entitlements: features of plans, limits and seats. The crate `tenantry-billing` implements it by the plan
//! catalogue, and holds the use cases of plans; this crate never names it.
//!
//! Any room may use it. [`Unlimited`] is the default of a service without billing.

mod entitlements;

pub use entitlements::{AddError, Countable, Entitlements, Feature, NotInPlan, RequiredPlans, Unlimited};
