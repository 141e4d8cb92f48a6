use crate::kernel::{JobId, LeaseId, RequestId, TenantId, UserId};

/// A job that a worker has leased, as far as it is known across tenants: without what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobLease {
    /// Whose job it is.
    pub tenant: TenantId,
    /// The job that is leased.
    pub job: JobId,
    /// Which handler does it.
    pub kind: String,
    /// Identifies this lease: the next worker of the same job gets another one.
    pub lease: LeaseId,
}

/// Who asked for a job; the audit entries that the job makes say so too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initiator {
    /// What it was: see [`Actor::as_str`](crate::tenant::Actor::as_str).
    pub actor_type: String,
    /// The user, when one was behind it.
    pub actor_id: Option<UserId>,
    /// The request that asked for the job.
    pub request: RequestId,
}
