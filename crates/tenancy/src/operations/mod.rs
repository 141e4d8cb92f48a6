//! Running the service: jobs and their worker, mail, idempotency keys, operators, and the upkeep of stored rows.

pub mod idempotency;
pub mod job;
pub mod mail;
pub mod operator;
pub(crate) mod operator_guess;
pub mod operator_log;
pub mod operator_login;
pub mod operator_mfa;
pub mod system_job;
pub mod upkeep;
pub mod worker;
