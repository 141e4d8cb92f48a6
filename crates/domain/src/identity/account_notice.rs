//! Mails to one user about their own account, in words.

use async_trait::async_trait;
use chrono::Duration;
use serde::{Deserialize, Serialize};

use crate::identity::LinkPurpose;
use crate::kernel::{AccountNoticeId, Letter, Line, Reader, StoreError, Time, UserId, wall_clock};

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
        /// From which address.
        address: Option<String>,
        /// With which program, as it calls itself.
        user_agent: Option<String>,
    },
    /// A refresh token was used again that had been used up: a copy of it is somewhere else.
    TokenReused,
}

/// A kind of notice of which a user gets at most one in [`RareNotice::PAUSE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RareNotice {
    /// [`AccountNotice::NewNetwork`].
    NewNetwork,
    /// [`AccountNotice::TokenReused`].
    TokenReused,
}

impl RareNotice {
    /// The shortest time between two notices of a kind.
    pub const PAUSE: Duration = Duration::days(1);

    /// Its name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NewNetwork => "new_network",
            Self::TokenReused => "token_reused",
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
    /// The notice in words.
    pub fn letter(&self, reader: &Reader, at: Time) -> Letter {
        let when = wall_clock(at, &reader.zone);
        let tenant = &reader.tenant;
        let (subject, happened) = match self {
            Self::PasswordChanged => (
                "your password was changed",
                format!(
                    "The password of your account at {tenant} was changed on {when}. All other sessions have ended."
                ),
            ),
            Self::PasswordReset => (
                "your password was reset",
                format!(
                    "The password of your account at {tenant} was reset on {when}. All sessions have ended."
                ),
            ),
            Self::NewNetwork { address, user_agent } => {
                let shown = |text: &Option<String>| Line::of(text.as_deref().unwrap_or("unknown"));
                (
                    "a login from a new network",
                    format!(
                        "Somebody logged in to your account at {tenant} on {when}, from a network that was not seen in the \
                         last 30 days.\n\n  Address  {}\n  Program  {}",
                        shown(address),
                        shown(user_agent)
                    ),
                )
            }
            Self::TokenReused => (
                "a session was ended",
                format!(
                    "A session of your account at {tenant} was ended on {when}: its refresh token was used twice, so \
                     somebody may have a copy of it."
                ),
            ),
        };
        let act = format!(
            "If this was not you, ask for a link to reset your password at {} and notify an admin of {tenant}.",
            reader.app_url
        );
        written(
            reader,
            &format!("Hello {}", reader.name),
            subject,
            &[happened, act],
        )
    }
}

impl LinkPurpose {
    /// The mail that carries a link.
    pub fn letter(self, reader: &Reader, url: &str, expires_at: Time) -> Letter {
        let tenant = &reader.tenant;
        let until = wall_clock(expires_at, &reader.zone);
        let (subject, what, unasked) = match self {
            Self::ResetPassword => (
                "reset your password",
                format!("Choose a new password for your account at {tenant} with this link:"),
                "If you did not ask for it, ignore this mail: your password stays as it is.",
            ),
            Self::VerifyEmail => (
                "verify your e-mail address",
                format!("Verify the e-mail address of your account at {tenant} with this link:"),
                "If you have no such account, ignore this mail.",
            ),
            Self::ConfirmEmail => (
                "confirm your new e-mail address",
                format!("Confirm with this link that your account at {tenant} gets this e-mail address:"),
                "If you did not ask for it, ignore this mail: the account keeps its address.",
            ),
            Self::RevertEmail => (
                "your e-mail address was changed",
                format!(
                    "Your account at {tenant} has another e-mail address now. If this was not you, take the change back \
                     with this link, which ends all sessions:"
                ),
                "If it was you, ignore this mail.",
            ),
        };
        let greeting = match self {
            // Anybody may name an address that is not theirs, under a name that is an advertisement.
            Self::VerifyEmail | Self::ConfirmEmail => "Hello".to_owned(),
            Self::ResetPassword | Self::RevertEmail => format!("Hello {}", reader.name),
        };
        let works = format!("The link works once, until {until}. {unasked}");
        written(reader, &greeting, subject, &[what, format!("  {url}"), works])
    }
}

fn written(reader: &Reader, greeting: &str, subject: &str, parts: &[String]) -> Letter {
    Letter {
        subject: reader.subject(subject),
        text: format!("{greeting},\n\n{}\n", parts.join("\n\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(name: &str) -> Reader {
        Reader {
            name: Line::of(name),
            tenant: Line::of("Acme Inc"),
            zone: "Europe/Berlin".into(),
            app_url: Line::of("https://app.example.com/"),
        }
    }

    #[test]
    fn a_link_is_on_a_line_of_its_own_with_its_end() {
        let at = "2026-01-15T12:00:00Z".parse().unwrap();
        for purpose in LinkPurpose::ALL {
            let letter = purpose.letter(&reader("Ada"), "https://app.example.com/x#token=y", at);
            assert!(letter.subject.as_str().starts_with("[Acme Inc] "));
            let is_named = letter.text.starts_with("Hello Ada,\n");
            assert_eq!(
                is_named,
                matches!(purpose, LinkPurpose::ResetPassword | LinkPurpose::RevertEmail)
            );
            assert!(letter.text.contains("\n  https://app.example.com/x#token=y\n"));
            assert!(letter.text.contains("2026-01-15 13:00 (Europe/Berlin)"));
        }
    }

    #[test]
    fn what_callers_choose_begins_no_line() {
        let at = "2026-01-15T12:00:00Z".parse().unwrap();
        let letter = AccountNotice::PasswordReset.letter(&reader("Ada\r\nBcc: eve@example.com"), at);
        assert!(letter.text.starts_with("Hello Ada Bcc: eve@example.com,\n"));
        let notice = AccountNotice::NewNetwork {
            address: None,
            user_agent: Some("Mail\r\n\r\nClick: https://evil.example".into()),
        };
        let text = notice.letter(&reader("Ada"), at).text;
        assert!(text.contains("  Program  Mail Click: https://evil.example\n"));
        assert!(text.contains("  Address  unknown\n"));
    }
}
