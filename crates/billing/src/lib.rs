//! What is on offer and what it costs: the nouns of billing.
//!
//! The verbs (subscribing, invoicing) are not here yet. Tenancy knows of this crate only what
//! [`tenantry_domain::PlanCatalogue`] says.
#![deny(missing_docs)]

mod limit;
mod plan;
mod plans;
mod price;

pub use limit::Limit;
pub use plan::Plan;
pub use plans::{PlanError, Plans};
pub use price::{Currency, CurrencyError, Interval, Price};
