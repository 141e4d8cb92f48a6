//! Billing: plans and entitlements, metering and quotas, subscriptions, invoices, dunning and reports.
//!
//! The crate builds on `tenantry-tenancy`: its use cases take that crate's [`Cx`](tenantry_tenancy::Cx), and its jobs run in that
//! crate's worker ([`BillingHandlers`]). Tenancy never names this crate. What it needs is a port with an implementation here:
//!
//! | port of tenancy | implementation |
//! | --- | --- |
//! | [`Entitlements`](tenantry_tenancy::plans::Entitlements) | [`PlanEntitlements`](plans::entitlement::PlanEntitlements) |
//! | [`UsageRecorder`](tenantry_tenancy::usage::UsageRecorder) | [`LedgerRecorder`](usage::usage_rollup::LedgerRecorder) |
//! | [`QuotaRecovery`](tenantry_tenancy::usage::QuotaRecovery) | [`LeaseRecovery`](usage::quota_recovery::LeaseRecovery) |
//! | [`Subscriptions`](tenantry_tenancy::billing::Subscriptions) | [`PaidSubscriptions`](billing::billing_provision::PaidSubscriptions) |
//!
//! A name is reached by its room (`usage::metering`). A room uses only those before it: `kernel`, [`usage`], [`plans`],
//! [`billing`].
#![deny(missing_docs)]
#![cfg_attr(
    test,
    expect(
        clippy::too_many_lines,
        reason = "tests are tables of cases: longer with each case, and no harder to read"
    )
)]

pub mod billing;
mod handlers;
mod kernel;
pub mod plans;
pub mod usage;

pub use handlers::BillingHandlers;
