//! Jobs, jobs of the platform, operators and idempotency keys.

pub(crate) mod idempotency;
pub(crate) mod job;
pub(crate) mod operator;
pub(crate) mod system_job;
