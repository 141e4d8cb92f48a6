//! The port of entitlements: features of plans, limits and seats. The crate `tenantry-billing` implements it by the plan
//! catalogue, and holds the use cases of plans; this crate never names it.
//!
//! Any room may use it. [`Unlimited`] is the default of a service without billing.

pub use crate::kernel::context::entitlements::{Countable, Entitlements, Feature, Unlimited};
pub use crate::kernel::not_in_plan::{AddError, NotInPlan, RequiredPlans};
