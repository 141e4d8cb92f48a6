//! The port of payments: what sign-up needs of them. The crate `tenantry-billing` implements it by the payment provider, and
//! holds the use cases of billing; this crate never names it.
//!
//! Any room may use it. [`Unbilled`] is the default of a service without billing.

pub use crate::kernel::context::subscriptions::{Subscriptions, Unbilled};
