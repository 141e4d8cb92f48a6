//! Running the service: jobs, mail, rate limits and quotas of requests, idempotency keys and platform operators.
//!
//! May use: `kernel`, `usage`, `identity`, `tenant`, `events`, `audit`, `flags`.

mod idempotency;
mod job;
mod limit;
mod mail;
mod mail_template;
mod operator;
mod operator_event;
mod operator_factor;
mod operator_outbox;
mod operator_role;
mod pending_operator;
mod platform_rows;
mod platform_support;
mod quota_gate;
mod sent_mail;
mod system_job;

pub use idempotency::{IdempotencyKeys, KeptRequest, RequestKey};
pub use job::{
    Backoff, Claim, Enqueued, InvalidTransition, Job, JobCensus, JobFilter, JobQueue, JobState, Jobs, Lease,
    NewJob, Progress,
};
pub use limit::{
    Account, AccountName, AccountRates, Allowance, BucketKey, ClientAddress, Deciding, Decision, Demand,
    Partition, Rate, RateBook, RateLimiter, Rule, TenantRates, TokenBucket,
};
pub use mail::{Accepted, Mail, MailError, Mailbox, Mailer, MessageId};
pub use mail_template::{Look, MailTemplates, RenderedMail, TemplateError};
pub use operator::{
    Operator, OperatorActor, OperatorChanges, OperatorClaims, OperatorGate, OperatorGuesses, OperatorScope,
    OperatorSession, OperatorTokens, OperatorWork, Operators,
};
pub use operator_event::{OperatorEvent, OperatorEventActor, OperatorEventFilter, RecordedOperatorEvent};
pub use operator_factor::{OperatorFactors, OperatorTotp};
pub use operator_outbox::OperatorOutbox;
pub use operator_role::{OperatorNeeds, OperatorPermission, OperatorRole};
pub use pending_operator::PendingOperator;
pub use platform_rows::{
    LogRange, LoggedEvents, PlatformAuditEvent, PlatformEvent, PlatformProject, PlatformRow, PlatformRows,
    PlatformTask, PlatformUsage, PlatformUser, RowPosition, RowRange,
};
pub use platform_support::{PlatformSupportAccess, PlatformSupportAccesses, SupportFilter};
pub use quota_gate::{
    ClockReading, Counting, Holding, QuotaAsk, QuotaGate, QuotaLender, QuotaLoan, QuotaRefusal, QuotaTake,
    Spent,
};
pub use sent_mail::{MailCounts, MailDecision, MailLimits, OutgoingMail, SentMails};
pub use system_job::{SystemJob, SystemJobs};
