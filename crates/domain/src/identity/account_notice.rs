//! Mails to one user about their own account.

use async_trait::async_trait;
use chrono::Duration;
use serde::{Deserialize, Serialize};

use crate::identity::LinkPurpose;
use crate::kernel::{
    AccountNoticeId, Line, MailTemplate, Message, Recipient, StoreError, Time, UserId, wall_clock,
};

/// Something that happened to a user's account, which its owner is notified of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccountNotice {
    /// The password was changed by the user, who knew the old one.
    PasswordChanged,
    /// The password was replaced with a link.
    PasswordReset,
    /// Somebody logged in from a network that was not seen for a while.
    NewNetwork {
        /// The IP address of the login; `None` when it is not known.
        address: Option<String>,
        /// With which program, as it calls itself.
        user_agent: Option<String>,
    },
    /// A refresh token was used again that had been used up: a copy of it is somewhere else.
    TokenReused,
    /// The first password expires soon.
    PasswordExpires {
        /// When it expires.
        until: Time,
    },
}

/// A kind of notice of which a user gets at most one in [`RareNotice::PAUSE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RareNotice {
    /// [`AccountNotice::NewNetwork`].
    NewNetwork,
    /// [`AccountNotice::TokenReused`].
    TokenReused,
    /// [`AccountNotice::PasswordExpires`], of which a user gets one for each first password.
    PasswordExpires,
}

impl RareNotice {
    /// The shortest time between two notices of a kind.
    pub const PAUSE: Duration = Duration::days(1);

    /// Its name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NewNetwork => "new_network",
            Self::TokenReused => "token_reused",
            Self::PasswordExpires => "password_expires",
        }
    }
}

/// Which rare notices users of the scope's tenant got.
#[async_trait]
pub trait RareNotices: Send {
    /// Notes that a user gets a notice of this kind now; false, and nothing is noted, when there was one since then.
    async fn note(
        &mut self,
        id: AccountNoticeId,
        user: UserId,
        kind: RareNotice,
        now: Time,
        since: Time,
    ) -> Result<bool, StoreError>;
}

impl AccountNotice {
    /// The notice as a mail.
    pub fn message(&self, recipient: &Recipient, at: Time) -> Message {
        let (kind, address, user_agent) = match self {
            Self::PasswordChanged => ("password_changed", &None, &None),
            Self::PasswordReset => ("password_reset", &None, &None),
            Self::NewNetwork { address, user_agent } => ("new_network", address, user_agent),
            Self::TokenReused => ("token_reused", &None, &None),
            Self::PasswordExpires { .. } => ("password_expires", &None, &None),
        };
        let until = match self {
            Self::PasswordExpires { until } => Some(wall_clock(*until, &recipient.zone)),
            _ => None,
        };
        Message::new(MailTemplate::AccountNotice)
            .with("kind", kind)
            .with("when", wall_clock(at, &recipient.zone))
            .with("until", until)
            .with("address", address.as_deref().map(Line::of))
            .with("user_agent", user_agent.as_deref().map(Line::of))
    }
}

impl LinkPurpose {
    /// The mail that carries a link.
    pub fn message(self, recipient: &Recipient, url: &str, expires_at: Time) -> Message {
        Message::new(MailTemplate::AccountLink)
            .with("kind", self.as_str())
            .with("link", url)
            .with("until", wall_clock(expires_at, &recipient.zone))
    }
}
