//! Invitations to join a tenant.

use async_trait::async_trait;
use serde::Serialize;

use crate::identity::{Email, RoleName};
use crate::kernel::{
    InvitationId, Line, MailTemplate, Message, Page, PageRequest, Position, Recipient, Role, StoreError,
    TenantId, Time, UserId, wall_clock,
};

/// An invitation of an address to a tenant. Serialized (for the audit log) without the hash of its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Invitation {
    /// Identifies the invitation within the tenant.
    pub id: InvitationId,
    /// The invited address.
    pub email: Email,
    /// The role of the user who accepts it.
    pub role: Role,
    /// The custom role of the user who accepts it, if it is to have one.
    pub custom_role: Option<RoleName>,
    /// SHA-256 of the token in its latest mail.
    #[serde(skip)]
    pub token_hash: [u8; 32],
    /// The admin who created it, or sent it last.
    pub invited_by: UserId,
    /// When it was created.
    pub created_at: Time,
    /// When its latest mail was asked for.
    pub sent_at: Time,
    /// How many mails were asked for; from 1 to [`Invitation::MOST_MAILS`].
    pub mails: u32,
    /// From then on its token is not accepted.
    pub expires_at: Time,
    /// When it was accepted, if it was.
    pub accepted_at: Option<Time>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Time>,
}

/// The data of a new invitation.
#[derive(Debug, Clone)]
pub struct NewInvitation {
    /// See [`Invitation::email`].
    pub email: Email,
    /// See [`Invitation::role`].
    pub role: Role,
    /// See [`Invitation::invited_by`].
    pub invited_by: UserId,
}

impl Invitation {
    /// For how many days an invitation can be accepted after its latest mail.
    pub const DAYS: i64 = 7;

    /// The maximum number of mails of an invitation.
    pub const MOST_MAILS: u32 = 10;

    /// The minimum time between two mails of an invitation, in seconds.
    pub const SECONDS_BETWEEN_MAILS: i64 = 60;

    /// A new invitation.
    pub fn new(id: InvitationId, data: NewInvitation, token_hash: [u8; 32], now: Time) -> Self {
        Self {
            id,
            email: data.email,
            role: data.role,
            custom_role: None,
            token_hash,
            invited_by: data.invited_by,
            created_at: now,
            sent_at: now,
            mails: 1,
            expires_at: now + chrono::Duration::days(Self::DAYS),
            accepted_at: None,
            revoked_at: None,
        }
    }

    /// Whether it was neither accepted nor revoked; it may have expired.
    pub fn is_unsettled(&self) -> bool {
        self.accepted_at.is_none() && self.revoked_at.is_none()
    }

    /// Whether it can be accepted. An open invitation takes a seat.
    pub fn is_open(&self, now: Time) -> bool {
        self.is_unsettled() && now < self.expires_at
    }

    /// Whether this is the token of its latest mail, and it can be accepted.
    pub fn admits(&self, token_hash: &[u8; 32], now: Time) -> bool {
        self.is_open(now) && self.token_hash == *token_hash
    }

    /// Replaces the token for another mail, and begins the days anew.
    pub fn renew(&mut self, token_hash: [u8; 32], by: UserId, now: Time) {
        self.token_hash = token_hash;
        self.invited_by = by;
        self.sent_at = now;
        self.mails += 1;
        self.expires_at = now + chrono::Duration::days(Self::DAYS);
    }

    /// For how many more seconds no other mail can be asked for.
    pub fn seconds_until_resend(&self, now: Time) -> i64 {
        let waited = (now - self.sent_at).num_seconds();
        (Self::SECONDS_BETWEEN_MAILS - waited).clamp(0, Self::SECONDS_BETWEEN_MAILS)
    }

    /// Where the invitation is in a list.
    pub fn position(&self) -> Position {
        Position {
            created_at: self.created_at,
            id: self.id.uuid(),
        }
    }
}

/// What the mail of an invitation is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvitationMail<'a> {
    /// What is stored of the invitation.
    pub invitation: &'a Invitation,
    /// The name of the admin who invites.
    pub inviter: &'a str,
    /// The link with the token.
    pub link: &'a str,
}

impl InvitationMail<'_> {
    /// The invitation as a mail.
    pub fn message(&self, recipient: &Recipient) -> Message {
        Message::new(MailTemplate::Invitation)
            .with("inviter", Line::of_stranger(self.inviter))
            .with("role", self.invitation.role.as_str())
            .with("link", self.link)
            .with("until", wall_clock(self.invitation.expires_at, &recipient.zone))
    }
}

/// The token of an invitation, for its mail.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedInvitation {
    /// The opaque token.
    pub token: String,
    /// Its SHA-256, which is what is stored.
    pub hash: [u8; 32],
}

impl std::fmt::Debug for IssuedInvitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IssuedInvitation(…)")
    }
}

/// A token of an invitation that came back and is one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresentedInvitation {
    /// The tenant it belongs to.
    pub tenant: TenantId,
    /// The invitation it belongs to.
    pub invitation: InvitationId,
    /// Its SHA-256.
    pub hash: [u8; 32],
}

/// Makes and recognizes tokens of invitations. As with [`RefreshTokens`](crate::identity::RefreshTokens), a token is authentic or
/// not without a look into the database.
pub trait InvitationTokens: Send + Sync {
    /// A new token of an invitation, with 256 random bits.
    fn issue(&self, tenant: TenantId, invitation: InvitationId) -> IssuedInvitation;

    /// What a token says; `None` when it is not one of ours.
    fn read(&self, token: &str) -> Option<PresentedInvitation>;
}

/// Invitations to the scope's tenant.
#[async_trait]
pub trait Invitations: Send {
    /// An invitation.
    async fn find(&mut self, id: InvitationId) -> Result<Option<Invitation>, StoreError>;
    /// An invitation, locked until the transaction ends.
    async fn find_for_update(&mut self, id: InvitationId) -> Result<Option<Invitation>, StoreError>;
    /// The invitation of that address that was neither accepted nor revoked, if there is one.
    async fn find_unsettled(&mut self, email: &Email) -> Result<Option<Invitation>, StoreError>;
    /// A page of the invitations that were neither accepted nor revoked, newest first.
    async fn list_unsettled(&mut self, page: PageRequest) -> Result<Page<Invitation>, StoreError>;
    /// How many are open at that time: those take a seat. Only meaningful while the tenant is locked.
    async fn count_open(&mut self, now: Time) -> Result<u64, StoreError>;
    /// How many were neither accepted nor revoked and have that custom role. Only meaningful while the tenant is locked.
    async fn count_with_role(&mut self, name: &RoleName) -> Result<u64, StoreError>;
    /// How many were created since then.
    async fn count_created(&mut self, since: Time) -> Result<u64, StoreError>;
    /// Adds an invitation.
    async fn insert(&mut self, invitation: &Invitation) -> Result<(), StoreError>;
    /// Stores an invitation's new state.
    async fn update(&mut self, invitation: &Invitation) -> Result<(), StoreError>;
    /// Revokes the unsettled invitations of an inviter; how many there were.
    async fn revoke_of(&mut self, inviter: UserId, at: Time) -> Result<u64, StoreError>;
    /// Deletes at most `limit` that were accepted, revoked or expired before then; how many there were.
    async fn delete_settled(&mut self, before: Time, limit: u64) -> Result<u64, StoreError>;
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn at(text: &str) -> Time {
        text.parse().unwrap()
    }

    fn invitation() -> Invitation {
        let data = NewInvitation {
            email: Email::parse("grace@example.com", "").unwrap(),
            role: Role::Member,
            invited_by: Uuid::nil().into(),
        };
        Invitation::new(Uuid::nil().into(), data, [1; 32], at("2026-01-01T12:00:00Z"))
    }

    #[test]
    fn open_for_seven_days_from_the_latest_mail() {
        let mut invitation = invitation();
        assert!(invitation.admits(&[1; 32], at("2026-01-08T11:59:59Z")));
        assert!(!invitation.admits(&[1; 32], at("2026-01-08T12:00:00Z")));
        assert!(!invitation.admits(&[2; 32], at("2026-01-02T12:00:00Z")));
        invitation.renew([2; 32], Uuid::nil().into(), at("2026-01-09T12:00:00Z"));
        assert!(!invitation.admits(&[1; 32], at("2026-01-10T12:00:00Z")));
        assert!(invitation.admits(&[2; 32], at("2026-01-16T11:59:59Z")));
        invitation.revoked_at = Some(at("2026-01-10T12:00:00Z"));
        assert!(!invitation.admits(&[2; 32], at("2026-01-10T12:00:00Z")));
    }

    #[test]
    fn another_mail_waits_a_minute() {
        let invitation = invitation();
        for (time, wait) in [
            ("12:00:00", 60),
            ("12:00:59", 1),
            ("12:01:00", 0),
            ("11:00:00", 60),
        ] {
            assert_eq!(
                invitation.seconds_until_resend(at(&format!("2026-01-01T{time}Z"))),
                wait
            );
        }
    }
}
