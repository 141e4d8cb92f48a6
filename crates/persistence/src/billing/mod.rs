//! Accounts at the payment provider, customers, invoices, reports of usage and received events.

pub(crate) mod billing_account;
pub(crate) mod customer;
pub(crate) mod invoice;
pub(crate) mod meter_report;
pub(crate) mod provider_event;
