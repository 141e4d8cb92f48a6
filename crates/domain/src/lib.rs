//! The nouns of Tenantry, their rules, and the ports behind which everything else happens.
//!
//! This crate does no I/O and reads neither a clock nor entropy: both arrive through [`Clock`] and
//! [`IdSource`]. Three ideas carry the isolation guarantee:
//!
//! * [`TenantScope`] is the proof that somebody was admitted to one tenant. It has no public constructor:
//!   it comes out of [`Gate`], which turns stored facts (a membership, a tenant's state) into a scope.
//! * [`Units`] runs work inside a transaction begun *with* a scope; there is no transaction without one.
//! * The repository ports ([`Projects`], [`Tasks`], …) have no tenant parameter, so there is none to
//!   forget or to confuse.
//!
//! A scope cannot be forged by the code that uses these crates:
//!
//! ```compile_fail,E0451
//! use tenantry_domain::{Actor, RequestId, Role, Standing, TenantId, TenantScope};
//! fn forge(tenant: TenantId, request: RequestId) -> TenantScope {
//!     TenantScope { tenant, standing: Standing::Active, actor: Actor::Guest, role: Some(Role::Admin), request }
//! }
//! ```
//!
//! ```compile_fail,E0277
//! let scope: tenantry_domain::TenantScope = serde_json::from_str("{}").unwrap();
//! ```
//!
//! ```compile_fail,E0599
//! let scope = tenantry_domain::TenantScope::default();
//! ```
//!
//! Nor can the scope of an operator:
//!
//! ```compile_fail,E0451
//! use tenantry_domain::{OperatorActor, OperatorId, OperatorScope, RequestId};
//! fn forge(id: OperatorId, request: RequestId) -> OperatorScope {
//!     OperatorScope { actor: OperatorActor::Operator(id), request }
//! }
//! ```
#![deny(missing_docs)]

mod account_link;
mod account_notice;
mod address;
mod announce;
mod api_key;
mod audit;
mod billing_account;
mod branding;
mod bucket;
mod call;
mod charged_time;
mod code;
mod colour;
mod condition;
mod css;
mod customer;
mod dunning;
mod entitlement;
mod flag;
mod flag_catalogue;
mod flag_concern;
mod flag_override;
mod flag_program;
mod flag_set;
mod hierarchy;
mod id;
mod idempotency;
mod invalid;
mod invitation;
mod invoice;
mod job;
mod letter;
mod limit;
mod locale;
mod mail;
mod meter;
mod meter_report;
mod mfa;
mod name;
mod network;
mod notice;
mod number;
mod operator;
mod operator_event;
mod page;
mod password;
mod patch;
mod payment;
mod period;
mod plan;
mod plan_limit;
mod price;
mod project;
mod projection;
mod provider_event;
mod quota;
mod quota_drift;
mod quota_gate;
mod registry;
mod resource;
mod role;
mod scope;
mod seal;
mod segment;
mod session;
mod setting;
mod storage;
mod store;
mod system_job;
mod task;
mod tenant;
mod time;
mod token;
mod usage;
mod user;

pub use account_link::{AccountLink, AccountLinks, IssuedLink, LinkPurpose, LinkTokens, PresentedLink};
pub use account_notice::{AccountNotice, RareNotice, RareNotices};
pub use address::{
    AddressError, HostResolver, LONGEST_URL, PORTS, PublicUrl, Unresolved, is_public, is_public_name,
};
pub use announce::{Announcer, Change, Memory};
pub use api_key::{
    AllowedNetwork, ApiKey, ApiKeyFormat, ApiKeyPatch, ApiKeys, ExpiryStage, FormerSecret, IssuedApiKey,
    KeyRefusal, NewApiKey, PresentedApiKey, SecretSource,
};
pub use audit::{AuditEvent, AuditLog, Category, cut_details, cut_state};
pub use billing_account::{
    BillingAccount, BillingAccounts, FetchedAccount, PendingCheckout, PlanStep, SeatLimit, SeatsOf,
};
pub use branding::{Branding, BrandingPatch, Brandings, Rebranded, Warning};
pub use bucket::{Bucket, Share, WHOLE};
pub use call::{Call, CallSpool, EndedSpool, SpoolTally, SpoolTrouble};
pub use charged_time::ChargedTime;
pub use code::ErrorCode;
pub use colour::{Colour, Contrasts, ENOUGH_CONTRAST};
pub use condition::{Comparator, Condition, KNOWN_ATTRIBUTES};
pub use css::{
    CONTAINMENT, CSS_LIMIT, CssTooLong, Objection, Removed, SCOPE, SafeCss, VARIABLES, sanitise_css,
};
pub use customer::{Customers, KnownCustomer};
pub use dunning::{Dunning, DunningState, DunningStep, DunningTerms};
pub use entitlement::{Agreed, Entitlements, Subscription};
pub use flag::{FlagDefinition, FlagRule, FlagType, Lifecycle, Part, Prerequisite, Serve, Split};
pub use flag_catalogue::{
    DefinitionVersion, FlagCatalogue, FlagDefinitions, FlagEditing, FlagOverrides, FlagSource, FlagVersion,
    SegmentVersion,
};
pub use flag_override::FlagOverride;
pub use flag_program::FlagProgram;
pub use flag_set::{
    Evaluation, Explanation, FlagSet, FlagTenant, LevelResult, PrerequisiteResult, Reason, RuleOutcome,
    RuleResult, Subject,
};
pub use hierarchy::{Level, Resolved, resolve};
pub use id::{
    AccountLinkId, AccountNoticeId, ApiKeyId, AuditEventId, BillingAccountId, FlagOverrideId, IdSource,
    InvitationId, InvoiceId, JobId, LeaseId, MemberId, MeterReportId, MfaChallengeId, OperatorEventId,
    OperatorId, ParseIdError, ProjectId, QuotaAlertId, QuotaCounterId, QuotaLeaseId, QuotaReservationId,
    ResourceId, ResourceVersionId, SessionId, SystemJobId, TaskId, TenantId, UsageEventId, UserId,
};
pub use idempotency::{IdempotencyKeys, KeptAnswer, KeptRequest, KeyTaken, RequestKey};
pub use invalid::{Check, FieldError, Invalid, check_text};
pub use invitation::{
    Invitation, InvitationMail, InvitationTokens, Invitations, IssuedInvitation, NewInvitation,
    PresentedInvitation,
};
pub use invoice::{Invoice, Invoices};
pub use job::{
    Backoff, Claim, Enqueued, Initiator, Job, JobCensus, JobFilter, JobLease, JobQueue, JobState, Jobs,
    Lease, Misstep, NewJob, Progress,
};
pub use letter::{Letter, Line, Reader};
pub use limit::{
    Account, AccountName, AccountRates, Allowance, BucketKey, ClientAddress, Deciding, Decision, Demand,
    Partition, Rate, RateBook, RateLimiter, Rule, TenantRates, TokenBucket,
};
pub use locale::{is_language_tag, is_time_zone, wall_clock};
pub use mail::{Accepted, Mail, MailError, Mailbox, Mailer, MessageId};
pub use meter::{Aggregation, Meter, MeterKey, MeterTerms, Meters, OveragePrice, PLAN_KEY_RULE, is_plan_key};
pub use meter_report::{MeterReport, MeterReports, ReportState};
pub use mfa::{
    DeviceToken, MFA_CHALLENGE_FAILURES, MFA_CHALLENGE_SECONDS, MFA_CHALLENGES, MfaChallenge, MfaRequirement,
    OneTimeCodes, RECOVERY_CODES, RecoveryCode, SecondFactors, TOTP_STEP_SECONDS, TRUSTED_DEVICE_DAYS,
    TRUSTED_DEVICES, TotpFactor, TotpSecret, TrustedDevice, without_separators,
};
pub use network::Network;
pub use notice::{ApiKeyNotice, DunningNotice, EndingKey, Notice, Owed, QuotaNotice};
pub use operator::{
    Operator, OperatorActor, OperatorClaims, OperatorGate, OperatorScope, OperatorTokens, OperatorWork,
    Operators,
};
pub use operator_event::OperatorEvent;
pub use page::{Page, PageRequest, Position};
pub use password::{
    CallerClass, CallerGroup, HashingCaller, Password, PasswordError, PasswordHash, PasswordHasher, Verified,
    normalized,
};
pub use patch::Patch;
pub use payment::{
    ChargedMeter, CheckoutRef, CustomerRef, Delivered, EventRef, ForgedEvent, InvoiceLine, InvoiceRef,
    InvoiceStatus, Link, NewCheckout, NewCustomer, NewSubscription, Offer, OpenCheckout, PaymentProvider,
    ProrationPreview, ProviderCustomer, ProviderError, ProviderEvent, ProviderInvoice, ProviderKey,
    ProviderSubscription, SubscriptionRef, SubscriptionStatus, UsageReport,
};
pub use period::{BillingCycle, Period, Reset};
pub use plan::{PlanCatalogue, PlanTerms, PlanVersion, PlanVersions};
pub use plan_limit::Limit;
pub use price::{Currency, CurrencyError, Interval, Price};
pub use project::{
    Member, MemberDetails, Members, NewProject, Project, ProjectFilter, ProjectPatch, ProjectRole,
    ProjectStatus, Projects,
};
pub use projection::Projection;
pub use provider_event::{EventState, ProviderEvents, ReceivedEvent};
pub use quota::{
    AlertBase, CommitError, Ended, MOST_UNITS, NotEnough, QuotaAlert, QuotaCounter, QuotaExceeded,
    QuotaLease, QuotaReservation, QuotaUpkeep, Quotas, ReservationState, StillLent, Tally, Threshold,
};
pub use quota_drift::{QuotaDrift, QuotaFinding};
pub use quota_gate::{
    Counting, Holding, Moment, QuotaAsk, QuotaGate, QuotaLender, QuotaLoan, QuotaRefusal, Spent, Taking,
};
pub use registry::TenantRegistry;
pub use resource::{NewResource, Resource, ResourceFilter, ResourcePatch, ResourceVersion, Resources};
pub use role::{Permission, PermissionSet, Role};
pub use scope::{
    Actor, Admission, ApiKeyFacts, Denied, Directory, Gate, JobFacts, MembershipFacts, Refused, RequestId,
    Standing, SystemScope, TenantFacts, TenantScope, TenantSelector,
};
pub use seal::Seal;
pub use segment::Segment;
pub use session::{
    IssuedRefresh, LOGIN_ADDRESSES, LiveAt, PresentedRefresh, RefreshTokens, Rotation, Session, Sessions,
};
pub use setting::{
    Address, Configurations, Definition, Difference, Editor, EffectiveSettings, Field, Kind, Pattern,
    RegistryError, SealedSecret, Setting, SettingChange, SettingRegistry, SettingSheet, SettingSheets,
    SettingVersion, TenantConfiguration,
};
pub use storage::Storage;
pub use store::{AsStoreError, Constraint, Mode, Store, StoreError, UnitOfWork, Units, Work};
pub use system_job::{SystemJob, SystemJobs};
pub use task::{NewTask, Priority, Task, TaskFilter, TaskPatch, TaskStatus, Tasks};
pub use tenant::{NewTenant, Settings, Slug, Tenant, TenantFilter, TenantPatch, TenantStatus, Tenants};
pub use time::{Clock, Time};
pub use token::{AccessClaims, AccessTokens, TokenError};
pub use usage::{
    Appended, Granularity, Intake, KeyedUsage, Measured, NewUsage, OutOfWindow, ROLLUP_PATIENCE, Rollup,
    USAGE_BATCH, Usage, UsageEvent, UsageKey, UsageOrigin, UsagePointers, UsageUpkeep, UsageWindow,
    check_reason, total_of,
};
pub use user::{Email, NewUser, User, UserFilter, UserPatch, Users};
