//! What every repository builds on: connections, transactions of one tenant, units of work, errors and advisory locks.

pub(crate) mod advisory;
pub(crate) mod error;
pub(crate) mod storage;
pub(crate) mod store;
pub(crate) mod support_guard;
pub(crate) mod transport;
pub(crate) mod tx;
pub(crate) mod vitals;
