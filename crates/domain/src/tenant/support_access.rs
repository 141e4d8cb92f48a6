//! Access of an operator of the platform to one tenant: asked for with a reason, approved by an admin of the tenant, for minutes.

use async_trait::async_trait;
use chrono::Duration;
use serde::Serialize;
use serde_json::{Value, json};

use crate::identity::TokenError;
use crate::kernel::name::named_enum;
use crate::kernel::{
    Check, Invalid, OperatorId, Page, PageRequest, Permission, StoreError, SupportAccessId, SupportUseId,
    TenantId, Time, UserId,
};

named_enum! {
    /// What an operator may do in a tenant.
    #[derive(PartialOrd, Ord)]
    pub enum SupportLevel {
        /// See what a viewer sees.
        Read = "read",
        /// Also the daily work of an admin.
        Write = "write",
    }
}

impl SupportLevel {
    /// What support with read access may do.
    pub const READS: [Permission; 10] = [
        Permission::ReadTenant,
        Permission::ReadUsers,
        Permission::ReadRoles,
        Permission::ReadDomains,
        Permission::ReadProjects,
        Permission::ReadTasks,
        Permission::ReadResources,
        Permission::ReadFeatures,
        Permission::ReadUsage,
        Permission::ReadEventTypes,
    ];

    /// What write access adds.
    pub const WRITES: [Permission; 8] = [
        Permission::ManageBranding,
        Permission::WriteProjects,
        Permission::ReadDeletedProjects,
        Permission::RestoreProjects,
        Permission::WriteTasks,
        Permission::WriteResources,
        Permission::ExplainFeatures,
        Permission::ManageFeatures,
    ];

    /// What support never may: who may do what, credentials, the security policy, money, exports, the audit log, and the end of the
    /// tenant. A permission that is in none of the three lists is refused as well; a test demands a decision about each.
    pub const NEVER: [Permission; 52] = [
        Permission::ManageTenant,
        Permission::DeleteTenant,
        // The security policy is a part of the settings, and so are values that only admins see.
        Permission::ReadSettingHistory,
        Permission::ManageSettings,
        Permission::OperateSettings,
        // Where the tenant's traffic comes in.
        Permission::ManageDomains,
        Permission::KeepDomains,
        // What an intruder would silence.
        Permission::ReadAlerts,
        Permission::AcknowledgeAlerts,
        Permission::RaiseAlerts,
        // Passwords and roles of others, and invitations of admins.
        Permission::ManageUsers,
        Permission::ImportUsers,
        Permission::RecoverUsers,
        Permission::ReadInvitations,
        Permission::RevokeInvitations,
        Permission::EditSelf,
        Permission::ManageOwnAccount,
        Permission::EndSession,
        Permission::EndUserSessions,
        Permission::ManageRoles,
        Permission::ReadApiKeys,
        Permission::ManageApiKeys,
        Permission::RevokeApiKeys,
        Permission::RotateApiKeys,
        Permission::RecordApiKeyUse,
        Permission::NotifyOfApiKeys,
        Permission::RecordUsage,
        Permission::BackfillUsage,
        Permission::InvalidateUsage,
        Permission::MeterUsage,
        Permission::ReserveQuota,
        Permission::LendQuota,
        Permission::ReadBilling,
        Permission::ManageBilling,
        Permission::OperateBilling,
        Permission::ReadAudit,
        // What receivers of the tenant get, with the addresses of users.
        Permission::ReadEvents,
        Permission::ConsumeEvents,
        Permission::KeepEvents,
        Permission::KeepNotifications,
        // Who writes endpoints is sent all events of the tenant, and attempts show what was sent.
        Permission::ReadWebhooks,
        Permission::WriteWebhooks,
        Permission::OpenWebhookPortal,
        Permission::ExportTenant,
        Permission::RunExport,
        Permission::ExportAudit,
        Permission::KeepAudit,
        Permission::SendMail,
        Permission::CountViews,
        Permission::Purge,
        // An operator approves no access of operators.
        Permission::ReadSupportAccess,
        Permission::ManageSupportAccess,
    ];

    /// Whether an operator with this access has a permission. Those of a service that embeds the product are refused: only it knows
    /// what they stand for.
    pub fn allows(self, permission: Permission) -> bool {
        Self::READS.contains(&permission) || (self == Self::Write && Self::WRITES.contains(&permission))
    }
}

named_enum! {
    /// How a support access stands.
    pub enum SupportStatus {
        /// It waits for an admin of the tenant.
        Pending = "pending",
        /// It is in force.
        Active = "active",
        /// An admin has refused it.
        Denied = "denied",
        /// The operator has taken the request back, or given the access up.
        Withdrawn = "withdrawn",
        /// Nobody has answered in time.
        Lapsed = "lapsed",
        /// Its minutes are over.
        Expired = "expired",
        /// An admin has ended it, or the account of the operator, that of the admin who approved it, or the policy that approved it has
        /// changed.
        Ended = "ended",
    }
}

named_enum! {
    /// Why an access ends that no admin has ended and no operator has given up.
    pub enum SupportEnd {
        /// The operator was deactivated, has another role, or all their tokens were ended.
        OperatorChanged = "operator_changed",
        /// The admin who has approved it was removed, deactivated, or is no admin any more.
        ApproverLeft = "approver_left",
        /// The security policy of the tenant approved it, and no longer approves such requests.
        PolicyChanged = "policy_changed",
    }
}

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSupportAccess {
    /// Why; 10 to 500 characters.
    pub reason: String,
    /// Whether the operator reads, or writes too.
    pub access: SupportLevel,
    /// For how many minutes from the approval on; 1 to 60.
    pub minutes: i64,
}

/// The access of an operator to the tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SupportAccess {
    /// Identifies it.
    pub id: SupportAccessId,
    /// When it was asked for.
    pub created_at: Time,
    /// The operator who asks, and whose access alone it is.
    pub operator: OperatorId,
    /// The name of the operator at that time.
    pub operator_name: String,
    /// The number of times that all tokens of the operator had been ended at that time: after a further end it is not in force. `None` of
    /// one from before this was stored.
    #[serde(skip)]
    pub operator_epoch: Option<i64>,
    /// Why.
    pub reason: String,
    /// Whether the operator reads, or writes too.
    pub access: SupportLevel,
    /// For how many minutes from the approval on.
    pub minutes: i64,
    /// As it is stored: [`Self::status_at`] knows the time.
    pub status: SupportStatus,
    /// Whether the security policy of the tenant has approved it.
    pub preapproved: bool,
    /// The admin who has approved, denied or ended it.
    pub decided_by: Option<UserId>,
    /// When it was approved or denied.
    pub decided_at: Option<Time>,
    /// When the request lapses, if nobody answers.
    pub lapses_at: Time,
    /// When an approved access is over.
    pub expires_at: Option<Time>,
    /// When it was ended or withdrawn before.
    pub ended_at: Option<Time>,
}

/// The state of a support access does not allow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the support access is {}", .0.as_str())]
pub struct SupportTransition(pub SupportStatus);

impl SupportAccess {
    /// For how long a request waits for an answer.
    pub const WAITS: Duration = Duration::hours(24);

    /// The most minutes of an access.
    pub const MOST_MINUTES: i64 = 60;

    /// A request.
    ///
    /// # Errors
    /// What is wrong with the reason or the minutes.
    pub fn new(
        id: SupportAccessId,
        (operator, name, epoch): (OperatorId, &str, i64),
        new: NewSupportAccess,
        now: Time,
    ) -> Result<Self, Invalid> {
        let reason = new.reason.trim().to_owned();
        let mut check = Check::new();
        check.line("/reason", &reason, 10..=500);
        check.require(
            (1..=Self::MOST_MINUTES).contains(&new.minutes),
            "/minutes",
            "range",
            "must be 1 to 60",
        );
        check.verdict()?;
        Ok(Self {
            id,
            created_at: now,
            operator,
            operator_name: name.to_owned(),
            operator_epoch: Some(epoch),
            reason,
            access: new.access,
            minutes: new.minutes,
            status: SupportStatus::Pending,
            preapproved: false,
            decided_by: None,
            decided_at: None,
            lapses_at: now + Self::WAITS,
            expires_at: None,
            ended_at: None,
        })
    }

    /// How it stands at a time.
    pub fn status_at(&self, now: Time) -> SupportStatus {
        match self.status {
            SupportStatus::Pending if now >= self.lapses_at => SupportStatus::Lapsed,
            SupportStatus::Active if self.expires_at.is_none_or(|at| now >= at) => SupportStatus::Expired,
            stored => stored,
        }
    }

    /// What the logs say of it.
    pub fn details(&self) -> Value {
        json!({
            "support_access_id": self.id, "operator_id": self.operator, "operator_name": self.operator_name,
            "access": self.access, "minutes": self.minutes, "preapproved": self.preapproved,
            "reason": self.reason, "expires_at": self.expires_at,
        })
    }

    /// Whether it waits for an answer or is in force.
    pub fn is_open(&self, now: Time) -> bool {
        matches!(
            self.status_at(now),
            SupportStatus::Pending | SupportStatus::Active
        )
    }

    /// An admin approves it. Its minutes begin.
    ///
    /// # Errors
    /// [`SupportTransition`] unless it is pending.
    pub fn approve(&mut self, by: UserId, now: Time) -> Result<(), SupportTransition> {
        self.expect(SupportStatus::Pending, now)?;
        self.decided_by = Some(by);
        self.begin(now);
        Ok(())
    }

    /// The security policy of the tenant approves it, if it is for reading.
    pub fn preapprove(&mut self, now: Time) {
        if self.access == SupportLevel::Read && self.status == SupportStatus::Pending {
            self.preapproved = true;
            self.begin(now);
        }
    }

    /// An admin denies it.
    ///
    /// # Errors
    /// [`SupportTransition`] unless it is pending.
    pub fn deny(&mut self, by: UserId, now: Time) -> Result<(), SupportTransition> {
        self.expect(SupportStatus::Pending, now)?;
        self.status = SupportStatus::Denied;
        self.decided_by = Some(by);
        self.decided_at = Some(now);
        Ok(())
    }

    /// An admin ends it.
    ///
    /// # Errors
    /// [`SupportTransition`] unless it is in force.
    pub fn end(&mut self, now: Time) -> Result<(), SupportTransition> {
        self.expect(SupportStatus::Active, now)?;
        self.status = SupportStatus::Ended;
        self.ended_at = Some(now);
        Ok(())
    }

    /// The operator gives it up.
    ///
    /// # Errors
    /// [`SupportTransition`] unless it is pending or in force.
    pub fn withdraw(&mut self, now: Time) -> Result<(), SupportTransition> {
        if !self.is_open(now) {
            return Err(SupportTransition(self.status_at(now)));
        }
        self.status = SupportStatus::Withdrawn;
        self.ended_at = Some(now);
        Ok(())
    }

    fn begin(&mut self, now: Time) {
        self.status = SupportStatus::Active;
        self.decided_at = Some(now);
        self.expires_at = Some(now + Duration::minutes(self.minutes));
    }

    fn expect(&self, status: SupportStatus, now: Time) -> Result<(), SupportTransition> {
        match self.status_at(now) {
            found if found == status => Ok(()),
            found => Err(SupportTransition(found)),
        }
    }
}

/// What was asked for with a support access: one for each operation and entity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupportUse {
    /// Identifies it.
    pub id: SupportUseId,
    /// Method and path template.
    pub operation: String,
    /// What the path names; empty where it names nothing.
    pub entity: String,
    /// The number of requests.
    pub requests: i64,
    /// When the first one came.
    pub first_at: Time,
    /// When the last one came.
    pub last_at: Time,
}

/// Support accesses to the scope's tenant.
#[async_trait]
pub trait SupportAccesses: Send {
    /// Adds a request.
    async fn insert(&mut self, access: &SupportAccess) -> Result<(), StoreError>;

    /// The one with an id.
    async fn find(&mut self, id: SupportAccessId) -> Result<Option<SupportAccess>, StoreError>;

    /// The one with an id, locked until the transaction ends.
    async fn find_for_update(&mut self, id: SupportAccessId) -> Result<Option<SupportAccess>, StoreError>;

    /// How many of an operator wait for an answer or are in force.
    async fn count_open(&mut self, operator: OperatorId, now: Time) -> Result<u64, StoreError>;

    /// A page of them, newest first; with a status those that have it at that time.
    async fn list(
        &mut self,
        status: Option<SupportStatus>,
        now: Time,
        page: PageRequest,
    ) -> Result<Page<SupportAccess>, StoreError>;

    /// Stores how one stands.
    async fn update(&mut self, access: &SupportAccess) -> Result<(), StoreError>;

    /// Ends the accesses in force whose approver is no acting admin; `leaving` counts as none already. Returns them.
    async fn end_without_approver(
        &mut self,
        leaving: Option<UserId>,
        now: Time,
    ) -> Result<Vec<SupportAccess>, StoreError>;

    /// Ends the accesses in force that the security policy has approved. Returns them.
    async fn end_preapproved(&mut self, now: Time) -> Result<Vec<SupportAccess>, StoreError>;

    /// Returns those that were ended with the operator's account and have no entry in the audit log yet. The caller adds it in the same
    /// transaction.
    async fn take_unlogged_ends(&mut self) -> Result<Vec<SupportAccess>, StoreError>;

    /// Deletes at most `limit` that were asked for before a time, with their uses. Returns how many.
    async fn delete_before(&mut self, time: Time, limit: u32) -> Result<u64, StoreError>;

    /// Whether a request is one of those that are counted already, or fewer than `most` operations and entities of the access are.
    async fn has_room_for_use(
        &mut self,
        access: SupportAccessId,
        what: (&str, &str),
        most: u32,
    ) -> Result<bool, StoreError>;

    /// Counts a request. Returns whether it is the first of its operation and entity.
    async fn count_use(
        &mut self,
        access: SupportAccessId,
        id: SupportUseId,
        (operation, entity): (&str, &str),
        now: Time,
    ) -> Result<bool, StoreError>;

    /// A page of what was asked for with an access, newest first.
    async fn uses(
        &mut self,
        access: SupportAccessId,
        page: PageRequest,
    ) -> Result<Page<SupportUse>, StoreError>;
}

/// What an operator's access token for one tenant says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupportClaims {
    /// `tid`: the tenant.
    pub tenant: TenantId,
    /// `sub`: the access that the tenant has given.
    pub access: SupportAccessId,
    /// `act.sub` (RFC 8693): the operator who acts.
    pub operator: OperatorId,
    /// `act.epoch`: how often all tokens of the operator had been ended.
    pub epoch: i64,
    /// `scope`: what for, a hint for clients. Decisions read the stored access.
    pub level: SupportLevel,
    /// `iat`.
    pub issued_at: Time,
    /// `exp`.
    pub expires_at: Time,
}

/// Signs and verifies operators' access tokens for one tenant, whose audience is neither that of users nor that of operators.
pub trait SupportTokens: Send + Sync {
    /// A signed token.
    fn sign(&self, claims: &SupportClaims) -> String;

    /// The claims of a token of ours.
    ///
    /// # Errors
    /// [`TokenError`].
    fn verify(&self, token: &str) -> Result<SupportClaims, TokenError>;

    /// The tenant that a token of ours was issued for, also after it has expired.
    fn issued_to(&self, token: &str) -> Option<TenantId>;
}

#[cfg(test)]
mod tests {
    use chrono::TimeZone as _;
    use uuid::Uuid;

    use super::*;

    fn start() -> Time {
        chrono::Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap()
    }

    fn asked(access: SupportLevel, minutes: i64) -> Result<SupportAccess, Invalid> {
        let new = NewSupportAccess {
            reason: "ticket 4711: tasks are missing".into(),
            access,
            minutes,
        };
        let operator = (Uuid::from_u128(7).into(), "Sam Support", 0);
        SupportAccess::new(Uuid::from_u128(1).into(), operator, new, start())
    }

    #[test]
    fn every_permission_is_decided_once() {
        for permission in Permission::ALL {
            let lists = [
                SupportLevel::READS.contains(permission),
                SupportLevel::WRITES.contains(permission),
                SupportLevel::NEVER.contains(permission),
            ];
            let count = lists.iter().filter(|is_in| **is_in).count();
            assert_eq!(
                count, 1,
                "decide about {permission:?} in one of READS, WRITES and NEVER"
            );
            assert_eq!(SupportLevel::Read.allows(*permission), lists[0], "{permission:?}");
            assert_eq!(
                SupportLevel::Write.allows(*permission),
                lists[0] || lists[1],
                "{permission:?}"
            );
        }
        assert!(SupportLevel::READS.iter().all(|permission| !permission.writes()));
    }

    #[test]
    fn only_what_users_may_do_and_api_keys_may_have_is_allowed() {
        for permission in SupportLevel::READS.iter().chain(&SupportLevel::WRITES) {
            assert!(
                permission.least_role().is_some() && permission.is_scope(),
                "{permission:?}"
            );
        }
    }

    #[test]
    fn minutes_and_reason_are_checked() {
        for minutes in [i64::MIN, -1, 0, 61, i64::MAX] {
            assert!(asked(SupportLevel::Read, minutes).is_err(), "{minutes}");
        }
        assert!(asked(SupportLevel::Write, 1).is_ok() && asked(SupportLevel::Write, 60).is_ok());
        let short = NewSupportAccess {
            reason: "  short     ".into(),
            access: SupportLevel::Read,
            minutes: 5,
        };
        let operator = (Uuid::from_u128(7).into(), "Sam", 0);
        let refused = SupportAccess::new(Uuid::from_u128(1).into(), operator, short, start()).unwrap_err();
        assert_eq!(refused.0[0].pointer, "/reason");
    }

    #[test]
    fn request_lapses_after_a_day_and_access_after_its_minutes() {
        let by = Uuid::from_u128(9).into();
        let mut access = asked(SupportLevel::Write, 5).unwrap();
        let day = start() + Duration::hours(24);
        assert_eq!(
            access.status_at(day - Duration::milliseconds(1)),
            SupportStatus::Pending
        );
        assert_eq!(access.status_at(day), SupportStatus::Lapsed);
        let lapsed = SupportTransition(SupportStatus::Lapsed);
        assert_eq!(access.approve(by, day), Err(lapsed));
        assert_eq!(access.deny(by, day), Err(lapsed));
        assert_eq!(access.withdraw(day), Err(lapsed));
        access.approve(by, start()).unwrap();
        let over = start() + Duration::minutes(5);
        assert_eq!(
            access.status_at(over - Duration::milliseconds(1)),
            SupportStatus::Active
        );
        assert_eq!(access.status_at(over), SupportStatus::Expired);
        let expired = SupportTransition(SupportStatus::Expired);
        assert_eq!(access.end(over), Err(expired));
        assert_eq!(
            access.approve(by, over),
            Err(expired),
            "an access is not approved twice"
        );
    }

    #[test]
    fn policy_approves_only_reads() {
        let mut write = asked(SupportLevel::Write, 5).unwrap();
        write.preapprove(start());
        assert_eq!(write.status, SupportStatus::Pending);
        let mut read = asked(SupportLevel::Read, 5).unwrap();
        read.preapprove(start());
        assert_eq!((read.status, read.preapproved), (SupportStatus::Active, true));
        read.end(start()).unwrap();
        read.preapprove(start());
        assert_eq!(read.status, SupportStatus::Ended, "what is ended stays ended");
    }
}
