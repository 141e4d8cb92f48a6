//! What every room builds on: ids, time, pages, patches, validation, roles, money, levels, errors of the store and other small values.
//!
//! A type belongs here when several rooms need it and it means the same in each of them. Nothing here names a tenant's data.
//! May use: no other room.

mod address;
mod code;
mod counted;
mod failure;
mod hex;
mod hierarchy;
mod id;
mod invalid;
mod invalidation;
mod kept_answer;
mod locale;
mod message;
pub(crate) mod name;
mod network;
pub(crate) mod number;
mod page;
mod patch;
mod period;
mod permission;
mod plan_limit;
mod price;
mod projection;
mod recipient;
mod request_id;
mod role;
mod seal;
mod storage;
mod store_error;
mod system_scope;
mod time;

pub use address::{
    AddressError, HostResolver, LONGEST_URL, PORTS, PublicUrl, Unresolved, is_metadata_name, is_public,
    is_public_name, read_url,
};
pub use code::ErrorCode;
pub use counted::counted;
pub use failure::Failure;
pub use hex::hex;
pub use hierarchy::{Level, Resolved, resolve};
pub use id::{
    AccountLinkId, AccountNoticeId, ApiKeyId, AuditBlockId, AuditEventId, AuditHeadId, BillingAccountId,
    CustomRoleId, DomainId, ErasureId, EventConsumerId, EventId, ExportId, FlagOverrideId, IdSource,
    InvitationId, InvoiceId, JobId, LeaseId, MemberId, MeterReportId, MfaChallengeId, NotificationId,
    OperatorEventId, OperatorId, ParseIdError, PasskeyId, ProjectId, QuotaAlertId, QuotaCounterId,
    QuotaLeaseId, QuotaReservationId, ResourceId, ResourceVersionId, SecurityAlertId, SecurityDetectionId,
    SessionId, SupportAccessId, SupportUseId, SystemJobId, TaskId, TenantId, UsageEventId, UserId,
    WebhookEndpointId,
};
pub use invalid::{Check, FieldError, Invalid, check_text, pointer_segment};
pub use invalidation::{Change, InvalidatedCache, InvalidationPublisher};
pub use kept_answer::{KeptAnswer, KeyTaken};
pub(crate) use locale::time_zone;
pub use locale::{is_language_tag, is_time_zone, wall_clock};
pub use message::{Language, MailTemplate, Message};
pub use network::Network;
pub use page::{Page, PageRequest, Position};
pub use patch::Patch;
pub use period::{BillingCycle, Period, Reset};
pub use permission::{MOST_NAMES, Needs, PermissionError, PermissionRegistry, PermissionSet};
pub use plan_limit::Limit;
pub use price::{Currency, CurrencyError, Interval, Price};
pub use projection::Projection;
pub use recipient::{Line, Recipient};
pub use request_id::RequestId;
pub use role::{Permission, PermissionDefinition, Role};
pub use seal::Seal;
pub use storage::Storage;
pub use store_error::{AsStoreError, Constraint, StoreError};
pub use system_scope::SystemScope;
pub use time::{Clock, Time};
