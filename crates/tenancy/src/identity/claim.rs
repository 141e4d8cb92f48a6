//! What a login claims before its password is compared.

use tenantry_domain::identity::{CallerClass, MailboxEntry, User};

use crate::Cx;
use crate::identity::lockout::Guesser;

/// What a login brings besides the password.
#[derive(Debug, Clone, Default)]
pub struct SecondFactor {
    /// A code of the app, or a recovery code.
    pub code: Option<String>,
    /// The token of a trusted device.
    pub device_token: Option<String>,
}

/// What is known of a login before its password is compared.
pub(crate) struct Claim {
    pub user: Option<User>,
    /// From where the account has lately logged in.
    pub addresses: Vec<Option<String>>,
    /// What comes besides the password.
    pub second: SecondFactor,
    /// Who guesses.
    pub guesser: Guesser,
    /// The hash of the token of the trusted device that the login shows.
    pub device: Option<[u8; 32]>,
    pub wait: Option<i64>,
    pub has_failed: bool,
    /// What takes the place of the password when the user comes from another tenant.
    pub mailbox: Option<MailboxEntry>,
}

impl Claim {
    /// Of a user who has just been made, and needs no password; `mailbox` is how they came from another tenant.
    pub(crate) fn of_new(cx: &Cx, user: &User, mailbox: Option<MailboxEntry>) -> Self {
        Self {
            user: Some(user.clone()),
            addresses: Vec::new(),
            second: SecondFactor::default(),
            guesser: Guesser::of(cx, user.email.as_str(), false),
            device: None,
            wait: None,
            has_failed: false,
            mailbox,
        }
    }

    /// Whether a user as stored now may get in by this claim.
    pub(crate) fn admits(&self, user: &User) -> bool {
        let by_mailbox = self.mailbox.as_ref().is_none_or(|entry| entry.proof.opens(user));
        user.is_active && by_mailbox
    }

    pub(crate) fn class(&self) -> CallerClass {
        CallerClass::known_if(self.guesser.is_known())
    }
}
