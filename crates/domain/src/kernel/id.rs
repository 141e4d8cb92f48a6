use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Where new ids come from. The real source makes `UUIDv7` values, so ids sort by creation time.
pub trait IdSource: Send + Sync {
    /// A fresh id, never handed out before.
    fn uuid(&self) -> Uuid;

    /// The last 32 bits of a fresh id, which are random: evenly spread, for delays. Not for secrets.
    fn random(&self) -> u32 {
        let [.., a, b, c, d] = *self.uuid().as_bytes();
        u32::from_be_bytes([a, b, c, d])
    }
}

/// The text given is not the id of anything: not a UUID in its hyphenated form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID")]
pub struct ParseIdError;

macro_rules! typed_ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The next id of this kind.
            pub fn next(ids: &dyn IdSource) -> Self {
                Self(ids.uuid())
            }

            /// The plain UUID, for adapters.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(value: Uuid) -> Self {
                Self(value)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseIdError;

            /// Accepts the hyphenated form only, so that one row has one address.
            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                if text.len() != 36 {
                    return Err(ParseIdError);
                }
                Uuid::try_parse(text).map(Self).map_err(|_| ParseIdError)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}

typed_ids! {
    /// A customer, which owns every row that names it.
    TenantId;
    /// A user; a user belongs to exactly one tenant.
    UserId;
    /// A login session, which is also the family of its refresh tokens.
    SessionId;
    /// A login that waits for its second factor.
    MfaChallengeId;
    /// A passkey of a user.
    PasskeyId;
    /// A link that was sent to a user by mail.
    AccountLinkId;
    /// When a user got a notice of a kind.
    AccountNoticeId;
    /// A credential for programs.
    ApiKeyId;
    /// A role that a tenant defines.
    CustomRoleId;
    /// A consumer of the feed of events.
    EventConsumerId;
    /// A custom domain of a tenant.
    DomainId;
    /// An endpoint to which webhooks of a tenant are sent.
    WebhookEndpointId;
    /// A project, which groups tasks and resources.
    ProjectId;
    /// A user's place in a project.
    MemberId;
    /// A task of a project.
    TaskId;
    /// A resource (document or link).
    ResourceId;
    /// A stored state of a resource.
    ResourceVersionId;
    /// What a tenant has chosen of a flag.
    FlagOverrideId;
    /// An entry of the audit log.
    AuditEventId;
    /// A notification of a user.
    NotificationId;
    /// An event of a tenant; it has the id of the entry of the audit log that records the change.
    EventId;
    /// Entries of the audit log that were chained together.
    AuditBlockId;
    /// A signed state of a tenant's audit chain.
    AuditHeadId;
    /// What a tenant has with the payment provider.
    BillingAccountId;
    /// An invitation to a tenant.
    InvitationId;
    /// The copy of an invoice of the payment provider.
    InvoiceId;
    /// A report of usage to the payment provider.
    MeterReportId;
    /// An alert about suspicious activity.
    SecurityAlertId;
    /// What the security rules of a tenant have counted.
    SecurityDetectionId;
    /// An export of a tenant.
    ExportId;
    /// Identifies the erasure of a person.
    ErasureId;
    /// A job of a tenant.
    JobId;
    /// A job of the system's own.
    SystemJobId;
    /// A worker's right to run a job, for a while.
    LeaseId;
    /// What is counted of a meter in a period.
    QuotaCounterId;
    /// An instance's right to use a part of a quota, for a while.
    QuotaLeaseId;
    /// A part of a quota that is set aside.
    QuotaReservationId;
    /// A threshold of a quota that was reached.
    QuotaAlertId;
    /// An operator of the platform.
    OperatorId;
    /// An entry of the audit of operators.
    OperatorEventId;
    /// An event of the ledger of usage.
    UsageEventId;
    /// Access of an operator to a tenant.
    SupportAccessId;
    /// What was done with such an access.
    SupportUseId;
}
