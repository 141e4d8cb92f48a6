//! What is paid: checkout and changes, events of the payment provider, invoices, dunning, reports of usage, and oversight.
//!
//! What the provider says is believed only after it was fetched from there. [`billing_provision::PaidSubscriptions`] is what
//! tenancy asks at sign-up; [`billing_sync`] is the one place that writes accounts and invoices.
//!
//! May use: `kernel`, `usage`, `plans`.

mod billing;
mod billing_contact;
pub mod billing_customer;
pub mod billing_dashboard;
pub mod billing_finding;
pub mod billing_oversight;
pub mod billing_provision;
pub mod billing_surplus;
pub mod billing_sync;
pub mod dunning;
pub mod invoice;
pub mod meter_report;
pub mod provider_event;
pub mod publish;
mod subscription_completion;
mod surplus_end;
mod sync_error;

pub use billing::*;
pub use sync_error::SyncError;
