//! Checkout, changes, invoices and the portal.

pub(crate) mod billing;
