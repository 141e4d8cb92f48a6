//! Mails to one user about what protects their account: second factors, passkeys, trusted devices, API keys, the address.

use async_trait::async_trait;
use chrono::Duration;
use serde::{Deserialize, Serialize};

use crate::kernel::{
    AccountNoticeId, Line, MailTemplate, Message, OperatorId, Recipient, StoreError, Time, UserId, wall_clock,
};

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
    /// The API key of a service account gave itself a new secret. The admins get it.
    ApiKeyRotatedItself {
        /// The name of the key.
        name: String,
    },
    /// A passkey was registered.
    PasskeyAdded {
        /// The name of the passkey.
        name: String,
    },
    /// The user removed a passkey.
    PasskeyRemoved {
        /// The name of the passkey.
        name: String,
    },
    /// A login with a passkey was refused, since its signature counter did not grow: there may be a copy of it.
    PasskeyCloned {
        /// The name of the passkey.
        name: String,
    },
    /// A link in a mail gave the account back to its owner. Names the factors that were removed, since they may be a thief's, and the
    /// passkeys that remain.
    FactorsAfterRecovery {
        /// Whether an authenticator app was removed.
        app_removed: bool,
        /// The names of the passkeys that were removed.
        removed: Vec<String>,
        /// The names of the passkeys that remain.
        remaining: Vec<String>,
    },
    /// The password was replaced with a link, and API keys of the user stay valid.
    PasswordResetWithKeys {
        /// How many keys.
        keys: u64,
    },
    /// An operator of the platform asks for access to the tenant, or has got it by the policy. The admins get it.
    SupportAccess {
        /// The operator. Servers of earlier releases store none.
        #[serde(default)]
        operator_id: Option<OperatorId>,
        /// The name of the operator.
        operator: String,
        /// `read` or `write`.
        access: String,
        /// For how many minutes.
        minutes: i64,
        /// Why.
        reason: String,
        /// Whether the policy of the tenant has approved it.
        preapproved: bool,
    },
}

impl SecurityNotice {
    /// How many notices of most kinds a user gets within [`SecurityNotice::WINDOW`]. The last one says that it is the last.
    pub const MOST: i32 = 5;

    /// In which time these are counted, from the first one on.
    pub const WINDOW: Duration = Duration::days(1);

    /// How many notices about the accesses of one operator a user gets within [`SecurityNotice::WINDOW`].
    pub const MOST_OF_OPERATOR: i32 = 20;

    /// How many notices that are counted together with this one a user gets within [`SecurityNotice::WINDOW`].
    pub const fn most(&self) -> i32 {
        match self {
            Self::SupportAccess { .. } => Self::MOST_OF_OPERATOR,
            _ => Self::MOST,
        }
    }

    /// Under what it is counted: its kind, and of a support access the operator too, so that no operator silences another one.
    pub fn counted_as(&self) -> String {
        match self {
            Self::SupportAccess {
                operator_id: Some(operator),
                ..
            } => format!("{}:{operator}", self.kind()),
            _ => self.kind().to_owned(),
        }
    }

    /// The event in short, such as `password_changed`, by which notices are counted.
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
            Self::ApiKeyRotatedItself { .. } => "api_key_rotated_itself",
            Self::PasskeyAdded { .. } => "passkey_added",
            Self::PasskeyRemoved { .. } => "passkey_removed",
            Self::PasskeyCloned { .. } => "passkey_cloned",
            Self::FactorsAfterRecovery { .. } => "factors_after_recovery",
            Self::PasswordResetWithKeys { .. } => "password_reset_with_keys",
            Self::SupportAccess {
                preapproved: false, ..
            } => "support_access_requested",
            Self::SupportAccess {
                preapproved: true, ..
            } => "support_access_given",
        }
    }

    /// The notice as a mail. `is_last` says that no further one of this kind is sent for a while.
    pub fn message(&self, recipient: &Recipient, at: Time, is_last: bool) -> Message {
        let (mut address, mut user_agent, mut key, mut keys) = (None, None, None, 0);
        let (mut operator, mut access, mut minutes, mut reason) = (None, None, 0, None);
        let (mut app_removed, mut removed, mut remaining) = (false, Vec::new(), Vec::new());
        match self {
            Self::DeviceTrusted {
                address: from,
                user_agent: program,
            } => {
                address = from.as_deref().map(Line::of);
                user_agent = program.as_deref().map(Line::of);
            }
            Self::WrongCodes { address: from } => address = from.as_deref().map(Line::of),
            // A name stands within a sentence.
            Self::ApiKeyCreated { name }
            | Self::ApiKeyRotated { name }
            | Self::ApiKeyRotatedItself { name }
            | Self::PasskeyAdded { name }
            | Self::PasskeyRemoved { name }
            | Self::PasskeyCloned { name } => {
                key = Some(Line::within(name, Line::SHORT));
            }
            Self::FactorsAfterRecovery {
                app_removed: app,
                removed: gone,
                remaining: there,
            } => {
                app_removed = *app;
                (removed, remaining) = (names(gone), names(there));
            }
            Self::PasswordResetWithKeys { keys: valid } => keys = *valid,
            Self::SupportAccess {
                operator_id: _,
                operator: name,
                access: level,
                minutes: granted,
                reason: why,
                preapproved: _,
            } => {
                operator = Some(Line::within(name, Line::SHORT));
                reason = Some(Line::of(why));
                (access, minutes) = (Some(Line::of(level)), *granted);
            }
            Self::EmailChangedByAdmin
            | Self::FactorEnabled
            | Self::FactorDisabled
            | Self::FactorReset
            | Self::RecoveryCodesRenewed
            | Self::RecoveryCodeUsed => {}
        }
        Message::new(MailTemplate::SecurityNotice)
            .with("kind", self.kind())
            .with("when", wall_clock(at, &recipient.zone))
            .with("address", address)
            .with("user_agent", user_agent)
            .with("key", key)
            .with("keys", keys)
            .with("operator", operator)
            .with("access", access)
            .with("minutes", minutes)
            .with("reason", reason)
            .with("app_removed", app_removed)
            .with("removed", removed)
            .with("remaining", remaining)
            .with("is_last", is_last)
    }
}

/// Names that stand within a sentence.
fn names(names: &[String]) -> Vec<Line> {
    names.iter().map(|name| Line::within(name, Line::SHORT)).collect()
}

/// Which bounded notices users of the scope's tenant got.
#[async_trait]
pub trait BoundedNotices: Send {
    /// Counts a notice of a kind to a user, at most `most` since then. Returns the number of it, from 1; `None`, and nothing
    /// is counted, when there were as many.
    async fn count(
        &mut self,
        id: AccountNoticeId,
        (user, kind): (UserId, &str),
        (now, since): (Time, Time),
        most: i32,
    ) -> Result<Option<i32>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> [SecurityNotice; 18] {
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
            SecurityNotice::ApiKeyRotatedItself { name: name() },
            SecurityNotice::PasskeyAdded { name: name() },
            SecurityNotice::PasskeyRemoved { name: name() },
            SecurityNotice::PasskeyCloned { name: name() },
            SecurityNotice::FactorsAfterRecovery {
                app_removed: true,
                removed: vec![name()],
                remaining: vec![name()],
            },
            SecurityNotice::PasswordResetWithKeys { keys: 2 },
            asked(text, false),
            asked(text, true),
        ]
    }

    fn asked(text: &str, preapproved: bool) -> SecurityNotice {
        SecurityNotice::SupportAccess {
            operator_id: None,
            operator: text.to_owned(),
            access: "read".to_owned(),
            minutes: 30,
            reason: text.to_owned(),
            preapproved,
        }
    }

    #[test]
    fn kinds_are_distinct_names() {
        let kinds: std::collections::BTreeSet<_> = all("x").iter().map(SecurityNotice::kind).collect();
        assert_eq!(kinds.len(), all("x").len());
        assert!(kinds.iter().all(
            |kind| kind.len() <= 40 && kind.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase())
        ));
    }
}
