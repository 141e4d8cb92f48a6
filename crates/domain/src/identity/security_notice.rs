//! Mails to one user about what protects their account: second factors, trusted devices, API keys, the address.

use async_trait::async_trait;
use chrono::Duration;
use serde::{Deserialize, Serialize};

use crate::kernel::{AccountNoticeId, Letter, Line, Reader, StoreError, Time, UserId, wall_clock};

/// Something that happened to what protects a user's account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecurityNotice {
    /// An admin gave the account another address. The former address gets it.
    EmailChangedByAdmin,
    /// A second factor was enrolled and confirmed.
    FactorEnabled,
    /// The user removed the second factor.
    FactorDisabled,
    /// An admin removed the second factor.
    FactorReset,
    /// The recovery codes were replaced.
    RecoveryCodesRenewed,
    /// A recovery code was used.
    RecoveryCodeUsed,
    /// A device became trusted: it needs no code for a while.
    DeviceTrusted {
        /// The address of its login.
        address: Option<String>,
        /// Its program, as it calls itself.
        user_agent: Option<String>,
    },
    /// Several wrong codes were given at logins with the right password, or in sessions.
    WrongCodes {
        /// The address of the last one.
        address: Option<String>,
    },
    /// The user made an API key.
    ApiKeyCreated {
        /// The name of the key.
        name: String,
    },
    /// The user gave an API key a new secret.
    ApiKeyRotated {
        /// The name of the key.
        name: String,
    },
    /// The password was replaced with a link, and API keys of the user stay valid.
    PasswordResetWithKeys {
        /// How many keys.
        keys: u64,
    },
}

impl SecurityNotice {
    /// How many notices of a kind a user gets within [`SecurityNotice::WINDOW`]. The last one says that it is the last.
    pub const MOST: i32 = 5;

    /// In which time these are counted, from the first one on.
    pub const WINDOW: Duration = Duration::days(1);

    /// Its kind, under which it is counted.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::EmailChangedByAdmin => "email_changed_by_admin",
            Self::FactorEnabled => "factor_enabled",
            Self::FactorDisabled => "factor_disabled",
            Self::FactorReset => "factor_reset",
            Self::RecoveryCodesRenewed => "recovery_codes_renewed",
            Self::RecoveryCodeUsed => "recovery_code_used",
            Self::DeviceTrusted { .. } => "device_trusted",
            Self::WrongCodes { .. } => "wrong_codes",
            Self::ApiKeyCreated { .. } => "api_key_created",
            Self::ApiKeyRotated { .. } => "api_key_rotated",
            Self::PasswordResetWithKeys { .. } => "password_reset_with_keys",
        }
    }

    /// The notice in words. `is_last` says that no further one of this kind is sent for a while.
    pub fn letter(&self, reader: &Reader, at: Time, is_last: bool) -> Letter {
        let when = wall_clock(at, &reader.zone);
        let happened = self.happened(reader.tenant.as_str(), &when);
        let act = match self {
            Self::WrongCodes { .. } => format!(
                "If this was not you, somebody knows your password: reset it at {} at once, and notify an admin of {}.",
                reader.app_url, reader.tenant
            ),
            // Its reader may have no account any more.
            Self::EmailChangedByAdmin => {
                format!("If you did not ask for it, notify an admin of {}.", reader.tenant)
            }
            Self::PasswordResetWithKeys { .. } => format!(
                "Check these keys at {}, and revoke those that you do not know. If you did not reset the password, notify an \
                 admin of {}.",
                reader.app_url, reader.tenant
            ),
            Self::FactorEnabled
            | Self::FactorDisabled
            | Self::FactorReset
            | Self::RecoveryCodesRenewed
            | Self::RecoveryCodeUsed
            | Self::DeviceTrusted { .. }
            | Self::ApiKeyCreated { .. }
            | Self::ApiKeyRotated { .. } => format!(
                "If this was not you, ask for a link to reset your password at {} and notify an admin of {}.",
                reader.app_url, reader.tenant
            ),
        };
        let last = is_last.then(|| "More notices of this kind are not sent for a day.\n".to_owned());
        let parts = [
            format!("Hello {},\n", reader.name),
            format!("{happened}\n"),
            format!("{act}\n"),
        ];
        let parts: Vec<_> = parts.into_iter().chain(last).collect();
        Letter {
            subject: reader.subject(self.subject()),
            text: parts.join("\n"),
        }
    }

    /// The subject.
    const fn subject(&self) -> &'static str {
        match self {
            Self::EmailChangedByAdmin => "your e-mail address was changed",
            Self::FactorEnabled => "a second factor was enabled",
            Self::FactorDisabled => "the second factor was disabled",
            Self::FactorReset => "the second factor was removed",
            Self::RecoveryCodesRenewed => "new recovery codes",
            Self::RecoveryCodeUsed => "a recovery code was used",
            Self::DeviceTrusted { .. } => "a device is trusted",
            Self::WrongCodes { .. } => "wrong codes of your second factor",
            Self::ApiKeyCreated { .. } => "an API key was created",
            Self::ApiKeyRotated { .. } => "an API key was rotated",
            Self::PasswordResetWithKeys { .. } => "your password was reset",
        }
    }

    /// What happened.
    fn happened(&self, tenant: &str, when: &str) -> String {
        let of_account = format!("of your account at {tenant}");
        match self {
            Self::EmailChangedByAdmin => format!(
                "On {when}, an admin gave your account at {tenant} another e-mail address than this one."
            ),
            Self::FactorEnabled => format!(
                "A second factor {of_account} was enabled on {when}. Logins need a code of the app from now on."
            ),
            Self::FactorDisabled => format!(
                "The second factor {of_account} was disabled on {when}. Logins need only the password from now on."
            ),
            Self::FactorReset => {
                format!("An admin removed the second factor {of_account} on {when}. All sessions have ended.")
            }
            Self::RecoveryCodesRenewed => format!(
                "The recovery codes {of_account} were replaced on {when}. The former codes do not work any more."
            ),
            Self::RecoveryCodeUsed => {
                format!("A recovery code {of_account} was used on {when}. It does not work again.")
            }
            Self::DeviceTrusted { address, user_agent } => format!(
                "A device {of_account} was trusted on {when}. It logs in without a code for 30 days.\n\n  Address  {}\n  \
                     Program  {}",
                shown(address),
                shown(user_agent)
            ),
            Self::WrongCodes { address } => format!(
                "Several wrong codes of the second factor {of_account} were given up to {when}, by a caller who knows the \
                     password. The account takes no code for a while.\n\n  Address  {}",
                shown(address)
            ),
            Self::ApiKeyCreated { name } => format!(
                "The API key \"{}\" was created with your account at {tenant} on {when}.",
                short(name)
            ),
            Self::ApiKeyRotated { name } => format!(
                "The API key \"{}\" got a new secret with your account at {tenant} on {when}.",
                short(name)
            ),
            Self::PasswordResetWithKeys { keys } => format!(
                "The password {of_account} was reset on {when}. All sessions have ended. {}: keys do not depend on the \
                     password.",
                valid_keys(*keys)
            ),
        }
    }
}

/// Which bounded notices users of the scope's tenant got.
#[async_trait]
pub trait BoundedNotices: Send {
    /// Counts a notice of a kind to a user, at most `most` since then. Returns the number of it, from 1; `None`, and nothing
    /// is counted, when there were as many.
    async fn count(
        &mut self,
        id: AccountNoticeId,
        (user, kind): (UserId, &'static str),
        (now, since): (Time, Time),
        most: i32,
    ) -> Result<Option<i32>, StoreError>;
}

/// What a caller sends about itself, or nothing.
fn shown(text: &Option<String>) -> Line {
    Line::of(text.as_deref().unwrap_or("unknown"))
}

fn valid_keys(keys: u64) -> String {
    match keys {
        1 => "1 API key that you created stays valid".to_owned(),
        _ => format!("{keys} API keys that you created stay valid"),
    }
}

/// The name of a key within a sentence.
fn short(name: &str) -> Line {
    Line::within(name, Line::SHORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> [SecurityNotice; 11] {
        let (address, user_agent) = (Some(text.to_owned()), Some(text.to_owned()));
        let name = || text.to_owned();
        [
            SecurityNotice::EmailChangedByAdmin,
            SecurityNotice::FactorEnabled,
            SecurityNotice::FactorDisabled,
            SecurityNotice::FactorReset,
            SecurityNotice::RecoveryCodesRenewed,
            SecurityNotice::RecoveryCodeUsed,
            SecurityNotice::DeviceTrusted { address, user_agent },
            SecurityNotice::WrongCodes {
                address: Some(name()),
            },
            SecurityNotice::ApiKeyCreated { name: name() },
            SecurityNotice::ApiKeyRotated { name: name() },
            SecurityNotice::PasswordResetWithKeys { keys: 2 },
        ]
    }

    fn reader() -> Reader {
        Reader {
            name: Line::of("Ada\r\nBcc: eve@example.com"),
            tenant: Line::of("Acme Inc"),
            zone: "Europe/Berlin".into(),
            app_url: Line::of("https://app.example.com/"),
        }
    }

    #[test]
    fn notices_say_when_where_and_what_to_do() {
        let at = "2026-01-15T12:00:00Z".parse().unwrap();
        for notice in all("x") {
            let letter = notice.letter(&reader(), at, false);
            assert!(letter.subject.as_str().starts_with("[Acme Inc] "));
            assert!(
                letter.text.starts_with("Hello Ada Bcc: eve@example.com,\n\n"),
                "{}",
                letter.text
            );
            assert!(
                letter.text.contains("2026-01-15 13:00 (Europe/Berlin)"),
                "{}",
                letter.text
            );
            assert!(
                letter.text.contains("notify an admin of Acme Inc.\n"),
                "{}",
                letter.text
            );
            assert!(!letter.text.contains("More notices"));
            let last = notice.letter(&reader(), at, true);
            assert!(
                last.text
                    .ends_with("\n\nMore notices of this kind are not sent for a day.\n")
            );
        }
    }

    #[test]
    fn callers_text_begins_no_line_and_links_to_nothing_long() {
        let at = "2026-01-15T12:00:00Z".parse().unwrap();
        for notice in all("key\r\n\r\nClick https://evil.example") {
            let text = notice.letter(&reader(), at, false).text;
            assert!(!text.lines().any(|line| line.starts_with("Click")), "{text}");
        }
    }

    #[test]
    fn kinds_are_distinct_names() {
        let kinds: std::collections::BTreeSet<_> = all("x").iter().map(SecurityNotice::kind).collect();
        assert_eq!(kinds.len(), 11);
        assert!(kinds.iter().all(
            |kind| kind.len() <= 40 && kind.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase())
        ));
    }
}
