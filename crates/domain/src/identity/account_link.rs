use async_trait::async_trait;
use chrono::Duration;

use crate::identity::Email;
use crate::kernel::{AccountLinkId, StoreError, TenantId, Time, UserId};

/// What the bearer of a link may do with it, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkPurpose {
    /// Choose a new password without the old one.
    ResetPassword,
    /// Prove that the address of the account is theirs.
    VerifyEmail,
    /// Prove that the address that the account is to get is theirs.
    ConfirmEmail,
    /// Give the account the address back that it had before.
    RevertEmail,
}

impl LinkPurpose {
    /// Every purpose.
    pub const ALL: [Self; 4] = [
        Self::ResetPassword,
        Self::VerifyEmail,
        Self::ConfirmEmail,
        Self::RevertEmail,
    ];

    /// Those that only the holder of the account's present address may use, or of the one that was to follow it.
    pub const OF_PRESENT_ADDRESS: [Self; 3] = [Self::ResetPassword, Self::VerifyEmail, Self::ConfirmEmail];

    /// Its name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ResetPassword => "reset_password",
            Self::VerifyEmail => "verify_email",
            Self::ConfirmEmail => "confirm_email",
            Self::RevertEmail => "revert_email",
        }
    }

    /// The purpose of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == text)
    }

    /// The page below the address of the product that a link leads to. The token is in the fragment, which browsers send
    /// to no server.
    pub const fn page(self) -> &'static str {
        match self {
            Self::ResetPassword => "reset-password",
            Self::VerifyEmail => "verify-email",
            Self::ConfirmEmail => "confirm-email",
            Self::RevertEmail => "revert-email",
        }
    }

    /// Whether it works only as long as the account has the address that it was sent to.
    pub const fn is_of_present_address(self) -> bool {
        match self {
            Self::ResetPassword | Self::VerifyEmail => true,
            Self::ConfirmEmail | Self::RevertEmail => false,
        }
    }

    /// How long a link works.
    pub const fn lifetime(self) -> Duration {
        match self {
            Self::ResetPassword | Self::VerifyEmail | Self::ConfirmEmail => Duration::hours(1),
            Self::RevertEmail => Duration::days(7),
        }
    }
}

crate::kernel::name::deserialize_by_name!(LinkPurpose);

impl serde::Serialize for LinkPurpose {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A link that was sent to a user by mail, and was not used yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountLink {
    /// Its id, which is in the token.
    pub id: AccountLinkId,
    /// The user whose account it opens.
    pub user_id: UserId,
    /// What the link allows its holder to do.
    pub purpose: LinkPurpose,
    /// SHA-256 of the token.
    pub token_hash: [u8; 32],
    /// The address it was sent to.
    pub email: Email,
    /// When it was made.
    pub created_at: Time,
    /// When it stops working.
    pub expires_at: Time,
}

impl AccountLink {
    /// The shortest time between two links for the same purpose to an address, so that no caller fills a user's inbox.
    pub const PAUSE: Duration = Duration::minutes(5);

    /// The maximum number of links for a purpose that work at the same time. Anybody may ask for links to any address, so a new
    /// link does not replace those before it: while there are so many, none is added.
    pub const MOST_LIVE: usize = 3;

    /// The maximum number of links to confirm an address that a user gets sent within [`AccountLink::CONFIRMATIONS_WINDOW`]: each
    /// goes to an address of the user's choice and counts for the tenant, which sends a bounded number to strangers.
    pub const MOST_CONFIRMATIONS: i32 = 10;

    /// The time over which links to confirm an address are counted.
    pub const CONFIRMATIONS_WINDOW: Duration = Duration::days(1);

    /// The most former addresses of an account that can be given back to it.
    pub const MOST_FORMER: usize = 5;

    /// Whether the link does this for the bearer of a token.
    pub fn allows(&self, purpose: LinkPurpose, token: &PresentedLink, now: Time) -> bool {
        // An authentic token has the server's MAC, so comparing its hash in constant time gains nothing.
        self.purpose == purpose && self.token_hash == token.hash && self.is_live(now)
    }

    /// Whether it still works.
    pub fn is_live(&self, now: Time) -> bool {
        now < self.expires_at
    }
}

/// The token of a new link.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedLink {
    /// The opaque token.
    pub token: String,
    /// Its SHA-256, which is what is stored.
    pub hash: [u8; 32],
}

impl std::fmt::Debug for IssuedLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IssuedLink(…)")
    }
}

/// A link's token that came back and was issued here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresentedLink {
    /// The tenant it belongs to.
    pub tenant: TenantId,
    /// The link it belongs to.
    pub link: AccountLinkId,
    /// Its SHA-256.
    pub hash: [u8; 32],
}

/// Issues and reads the tokens of links. A token is authentic or not without a look into the database, and names its tenant.
pub trait LinkTokens: Send + Sync {
    /// The token of a new link, with 256 random bits.
    fn issue(&self, tenant: TenantId, link: AccountLinkId) -> IssuedLink;

    /// What a token says; `None` when it was not issued here.
    fn read(&self, token: &str) -> Option<PresentedLink>;
}

/// Links of the scope's tenant that were not used yet. All changes of a user's links hold a lock on the user.
#[async_trait]
pub trait AccountLinks: Send {
    /// A link.
    async fn find(&mut self, id: AccountLinkId) -> Result<Option<AccountLink>, StoreError>;
    /// The user's links for a purpose, newest first, expired ones included.
    async fn list(&mut self, user: UserId, purpose: LinkPurpose) -> Result<Vec<AccountLink>, StoreError>;
    /// The links that give this address back to an account which had it.
    async fn list_former(&mut self, email: &Email) -> Result<Vec<AccountLink>, StoreError>;
    /// Adds a link.
    async fn insert(&mut self, link: &AccountLink) -> Result<(), StoreError>;
    /// Deletes a link; whether it was there.
    async fn delete(&mut self, id: AccountLinkId) -> Result<bool, StoreError>;
    /// Deletes a user's links for these purposes.
    async fn delete_of(&mut self, user: UserId, purposes: &[LinkPurpose]) -> Result<(), StoreError>;
    /// Deletes the links that expired before then; how many there were.
    async fn delete_expired(&mut self, before: Time) -> Result<u64, StoreError>;
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn at(text: &str) -> Time {
        text.parse().unwrap()
    }

    fn link() -> AccountLink {
        AccountLink {
            id: Uuid::from_u128(1).into(),
            user_id: Uuid::from_u128(2).into(),
            purpose: LinkPurpose::ResetPassword,
            token_hash: [7; 32],
            email: Email::stored("ada@example.com".into()),
            created_at: at("2026-01-15T12:00:00Z"),
            expires_at: at("2026-01-15T13:00:00Z"),
        }
    }

    #[test]
    fn a_link_does_one_thing_for_one_token_until_it_expires() {
        let token = |byte| PresentedLink {
            tenant: Uuid::from_u128(3).into(),
            link: link().id,
            hash: [byte; 32],
        };
        let reset = LinkPurpose::ResetPassword;
        let last = at("2026-01-15T12:59:59Z");
        assert!(link().allows(reset, &token(7), last));
        assert!(!link().allows(reset, &token(7), link().expires_at));
        assert!(!link().allows(reset, &token(8), last));
        assert!(!link().allows(LinkPurpose::VerifyEmail, &token(7), last));
    }

    #[test]
    fn purposes_are_read_back_from_their_names() {
        for purpose in LinkPurpose::ALL {
            assert_eq!(LinkPurpose::parse(purpose.as_str()), Some(purpose));
        }
        assert_eq!(LinkPurpose::parse("reset"), None);
    }
}
