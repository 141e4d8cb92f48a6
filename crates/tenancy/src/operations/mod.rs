//! Running the service: jobs and their worker, mail, and idempotency keys.

pub mod job;
pub mod mail;
pub mod worker;

pub use crate::kernel::context::idempotency;
