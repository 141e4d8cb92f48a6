//! Plans and their terms, and what a tenant is entitled to.
//!
//! May use: `kernel`, `usage`.

mod entitlement;
mod plan;

pub use entitlement::{Agreed, Entitlements, Subscription};
pub use plan::{PlanCatalogue, PlanTerms, PlanVersion, PlanVersions};
