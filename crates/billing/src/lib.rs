//! What is on offer and what it costs: the nouns of billing.
//!
//! The verbs (subscribing, invoicing) are not here yet. Tenancy knows of this crate only what
//! [`tenantry_domain::plans::PlanCatalogue`] says, and HTTP what [`tenantry_domain::operations::RateBook`] says.
#![deny(missing_docs)]
#![cfg_attr(
    test,
    expect(
        clippy::too_many_lines,
        reason = "tests are tables of cases: longer with each case, and no harder to read"
    )
)]

mod plan;
mod plan_book;
mod plans;
mod rates;

pub use plan::Plan;
pub use plan_book::PlanBook;
pub use plans::{PlanError, PlanOverride, Plans};
pub use rates::{PlanRates, RateError, RateOverride};
