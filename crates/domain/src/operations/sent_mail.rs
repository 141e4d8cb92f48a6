//! How much mail an address, a tenant and an account get within a day.
//!
//! Anybody may make the product mail a stranger: by a sign-up with the stranger's address, an invitation or a new user. So mail
//! to an address that its owner has not verified is bounded for the address over all tenants, and for the tenant. Notices of
//! what happened to an account are counted apart from all other mail to it: callers without an account cause the others, and
//! must not keep its owner from learning of a changed password. Mail to a verified address is bounded for each account and kind
//! of mail, so that one kind cannot use up the places of another. One mail in [`MailLimits::ALWAYS`], or in
//! [`MailLimits::ALWAYS_UNVERIFIED`], is sent all the same: callers without an account cause mails to reset a password, and must
//! not keep its owner from getting one.

use async_trait::async_trait;
use chrono::Duration;

use crate::identity::Email;
use crate::kernel::{Seal, StoreError, SystemScope, TenantId, Time};
use crate::operations::MessageId;

/// A mail that is about to be sent, as it is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutgoingMail {
    /// Its id. A mail that is tried again has the same one and is counted once.
    pub id: MessageId,
    /// The tenant that sends it.
    pub tenant: TenantId,
    /// A keyed digest of the recipient's address; see [`OutgoingMail::recipient`].
    pub recipient: [u8; 32],
    /// What it is: mail to a verified address is counted by kind.
    pub kind: &'static str,
    /// Whether the recipient has verified the address, as a user of this tenant.
    pub is_verified: bool,
    /// When it is sent.
    pub at: Time,
}

impl OutgoingMail {
    /// The kinds that tell the owner of an account what happened to it.
    pub const NOTICES: [&str; 2] = ["account.notice", "account.security_notice"];

    /// The digest that an address is counted under. The part of the local part behind a `+` is left out: with most providers
    /// it leads to the same inbox.
    pub fn recipient(seal: &dyn Seal, email: &Email) -> [u8; 32] {
        let (local, domain) = email.as_str().rsplit_once('@').unwrap_or((email.as_str(), ""));
        let inbox = local.split_once('+').map_or(local, |(inbox, _)| inbox);
        seal.digest("recipient of mail", format!("{inbox}@{domain}").as_bytes())
    }
}

/// How many mails were sent within [`MailLimits::WINDOW`], as they bear on one mail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MailCounts {
    /// Mails of all tenants to the address, unverified: the notices for a notice, else the others.
    pub recipient: u64,
    /// Mails of this tenant to the address: those of [`MailCounts::recipient`] while it is unverified, else those of the mail's kind.
    pub account: u64,
    /// Those of [`MailCounts::account`] that were sent within [`MailLimits::always`].
    pub account_lately: u64,
    /// Mails of this tenant to unverified addresses.
    pub tenant: u64,
}

/// The maximum numbers of mails within a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MailLimits {
    /// To an unverified address, from all tenants together, of notices and of other mail each; at least 1. One tenant may use half
    /// of it, rounded up, and then one mail in [`MailLimits::ALWAYS_UNVERIFIED`].
    pub recipient: u32,
    /// From a tenant to unverified addresses; at least 1.
    pub tenant: u32,
}

impl Default for MailLimits {
    fn default() -> Self {
        Self {
            recipient: 12,
            tenant: 500,
        }
    }
}

impl MailLimits {
    /// The time over which mails are counted.
    pub const WINDOW: Duration = Duration::days(1);

    /// The maximum number of mails of a kind to a verified address from its tenant.
    pub const ACCOUNT: u64 = 20;

    /// A mail of a kind to a verified address is always sent when so much time has passed since the last one. It is shorter
    /// than a link to reset a password works, so that while mail is not sent the link of the last one does.
    pub const ALWAYS: Duration = Duration::minutes(50);

    /// The same of mail to an unverified address, within the limit over all tenants: its owner gets a link to verify it, whoever
    /// has asked for others before.
    pub const ALWAYS_UNVERIFIED: Duration = Duration::hours(4);

    /// After how long without a mail one is always sent.
    pub const fn always(is_verified: bool) -> Duration {
        if is_verified {
            Self::ALWAYS
        } else {
            Self::ALWAYS_UNVERIFIED
        }
    }

    /// How often a mail server may take a mail without an answer before it is given up: each time its reader may have got a copy.
    pub const MOST_IN_DOUBT: u32 = 3;

    /// Whether one more mail may be sent.
    pub fn decide(&self, is_verified: bool, counts: MailCounts) -> MailDecision {
        if is_verified {
            return if counts.account < Self::ACCOUNT || counts.account_lately == 0 {
                MailDecision::Send
            } else {
                MailDecision::Account
            };
        }
        if counts.tenant >= u64::from(self.tenant) {
            MailDecision::Tenant
        } else if counts.account >= u64::from(self.recipient.div_ceil(2)) && counts.account_lately > 0 {
            MailDecision::Account
        } else if counts.recipient >= u64::from(self.recipient) {
            MailDecision::Recipient
        } else {
            MailDecision::Send
        }
    }
}

/// Whether a mail is sent, or which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MailDecision {
    /// It is sent.
    Send,
    /// The tenant's limit to unverified addresses.
    Tenant,
    /// The limit of this tenant to this address.
    Account,
    /// The limit of all tenants to this address. The tenant does not learn of it.
    Recipient,
}

impl MailDecision {
    /// Its name in logs, metrics and the audit log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::Tenant => "tenant_limit",
            Self::Account => "account_limit",
            Self::Recipient => "recipient_limit",
        }
    }
}

/// The mails that were sent lately, of all tenants. A row is kept although the user, the link or the invitation is deleted
/// that the mail was about.
#[async_trait]
pub trait SentMails: Send + Sync {
    /// Decides whether a mail may be sent, and counts it when it may. Of any number of mails at once, no more are admitted
    /// than the limits allow. A mail that was admitted before is admitted again and counted once.
    async fn admit(
        &self,
        because: SystemScope,
        mail: &OutgoingMail,
        limits: MailLimits,
    ) -> Result<MailDecision, StoreError>;

    /// Notes that the mail server took an admitted mail without an answer; how often it has.
    async fn note_in_doubt(&self, because: SystemScope, id: MessageId) -> Result<u32, StoreError>;

    /// Deletes the mails that were sent before then; how many there were.
    async fn delete_before(&self, because: SystemScope, before: Time) -> Result<u64, StoreError>;
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Digests that can be compared.
    struct Plain;

    impl Seal for Plain {
        fn seal(&self, _: &str, plain: &[u8]) -> Vec<u8> {
            plain.to_vec()
        }

        fn open(&self, _: &str, sealed: &[u8]) -> Option<Vec<u8>> {
            Some(sealed.to_vec())
        }

        fn digest(&self, _: &str, plain: &[u8]) -> [u8; 32] {
            let mut digest = [0; 32];
            digest.iter_mut().zip(plain).for_each(|(to, from)| *to = *from);
            digest
        }

        fn is_digest(&self, place: &str, plain: &[u8], digest: &[u8; 32]) -> bool {
            self.digest(place, plain) == *digest
        }

        fn is_current(&self, _: &str, _: &[u8]) -> bool {
            true
        }

        fn new_data_key(&self, _: &str) -> Vec<u8> {
            Vec::new()
        }

        fn with_data_key(&self, _: &str, _: &[u8]) -> Option<Arc<dyn Seal>> {
            None
        }
    }

    #[test]
    fn addresses_of_one_inbox_are_counted_together() {
        let digest = |text: &str| OutgoingMail::recipient(&Plain, &Email::parse(text, "").unwrap());
        assert_eq!(digest("ada@example.com"), digest("Ada+1@Example.com"));
        assert_eq!(digest("ada+a+b@example.com"), digest("ada@example.com"));
        assert_ne!(digest("ada@example.com"), digest("bob@example.com"));
    }

    #[test]
    fn each_limit_holds_by_itself() {
        let limits = MailLimits {
            recipient: 5,
            tenant: 10,
        };
        let counts = |recipient, account, tenant| MailCounts {
            recipient,
            account,
            account_lately: 1,
            tenant,
        };
        let later = MailCounts {
            account_lately: 0,
            ..counts(0, 20, 0)
        };
        for (is_verified, counts, decision) in [
            (false, counts(4, 2, 9), MailDecision::Send),
            (false, counts(5, 0, 0), MailDecision::Recipient),
            (false, counts(3, 3, 0), MailDecision::Account),
            (false, counts(9, 9, 10), MailDecision::Tenant),
            (true, counts(99, 19, 99), MailDecision::Send),
            (true, counts(0, 20, 0), MailDecision::Account),
            (true, later, MailDecision::Send),
            (false, later, MailDecision::Send),
            (
                false,
                MailCounts {
                    recipient: 5,
                    ..later
                },
                MailDecision::Recipient,
            ),
        ] {
            assert_eq!(limits.decide(is_verified, counts), decision, "{counts:?}");
        }
    }
}
