//! The verbs of Tenantry: every use case takes its context first, then ids, then data, and opens with the
//! permission it needs.
//!
//! A use case gets a [`Cx`]: the ports, and the [`TenantScope`](tenantry_domain::TenantScope) of whoever asks. It
//! reads and writes inside `cx.read(…)` and `cx.write(…)`, one transaction each, with its audit entry in the same
//! transaction as the change.
#![deny(missing_docs)]

pub mod access;
pub mod account;
pub mod account_email;
pub mod account_link;
pub mod account_mail;
pub mod api_key;
pub mod api_key_expiry;
mod api_key_use;
pub mod auth;
pub mod billing;
pub mod billing_customer;
pub mod billing_dashboard;
pub mod billing_finding;
pub mod billing_oversight;
pub mod billing_provision;
pub mod billing_surplus;
pub mod billing_sync;
pub mod branding;
mod context;
pub mod cycle;
pub mod dunning;
mod email_domain;
pub mod entitlement;
pub mod flag;
pub mod flag_definition;
pub mod idempotency;
pub mod invitation;
pub mod invoice;
pub mod job;
pub mod lifecycle;
pub mod mail;
pub mod meter_report;
pub mod metering;
pub mod mfa;
pub mod operator;
pub mod plan;
pub mod product_settings;
pub mod project;
pub mod provider_event;
pub mod provision;
pub mod purge;
pub mod quota;
pub mod quota_alert;
pub mod quota_drift;
pub mod quota_lending;
pub mod quota_recovery;
pub mod refusal;
pub mod resource;
pub mod session;
pub mod setting;
pub mod system_job;
pub mod task;
pub mod tenant;
mod traces;
pub mod upkeep;
pub mod usage;
pub mod usage_rollup;
pub mod user;
mod views;
pub mod worker;

pub use api_key_use::KeyUses;
pub use context::{BillingPolicy, Cx, Origin, Policy, Ports, Precondition, Stale, Tenancy};
pub use metering::Metering;
pub use operator::OperatorCx;
pub use traces::{NoTraces, Traces};
pub use views::{Flushed, ViewCounter};
