//! Jobs, jobs of the platform, operators, idempotency keys and sent mail.

pub(crate) mod idempotency;
pub(crate) mod job;
pub(crate) mod operator;
pub(crate) mod operator_factor;
pub(crate) mod operator_lockout;
pub(crate) mod operator_outbox;
mod platform_rows;
mod platform_support;
pub(crate) mod sent_mail;
pub(crate) mod system_job;
