//! Mail, and whoever delivers it.

use async_trait::async_trait;
use uuid::Uuid;

use crate::identity::Email;
use crate::kernel::{JobId, Line, Time};

/// Somebody's address, with their name where it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// What they are called.
    pub name: Option<Line>,
    /// Their address.
    pub email: Email,
}

impl Mailbox {
    /// Reads `ada@example.com` or `Ada Lovelace <ada@example.com>`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (name, address) = match text.strip_suffix('>') {
            Some(rest) => rest.rsplit_once('<')?,
            None => ("", text),
        };
        let name = name.trim().trim_matches('"');
        if address.trim() != address || Line::of(name).as_str() != name {
            return None;
        }
        Some(Self {
            name: (!name.is_empty()).then(|| Line::of(name)),
            email: Email::parse(address, "").ok()?,
        })
    }
}

/// What makes a mail that is sent again the same mail: its `Message-ID` is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId(Uuid);

impl MessageId {
    /// That of the mail which a job sends. However often the job is tried, it is one mail.
    pub const fn of_job(job: JobId) -> Self {
        Self(job.uuid())
    }

    /// As it is stored.
    pub const fn uuid(self) -> Uuid {
        self.0
    }

    /// That of a mail that nothing of ours stands behind, such as one that tries the settings.
    pub const fn once(id: Uuid) -> Self {
        Self(id)
    }
}

impl std::fmt::Display for MessageId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// A mail to one person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// See [`MessageId`].
    pub id: MessageId,
    /// Who gets it.
    pub to: Mailbox,
    /// What it is about.
    pub subject: Line,
    /// What it says, in plain text; lines end with a line feed.
    pub text: String,
    /// The same in HTML, if there is that.
    pub html: Option<String>,
    /// When it was written.
    pub written_at: Time,
    /// The link that ends mails like this one: a POST to it needs nothing else (RFC 8058).
    pub unsubscribe: Option<String>,
}

/// Why a mail was not delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MailError {
    /// The server cannot be reached, is too slow, or says that it may take the mail later (4xx). It has not taken the mail.
    #[error("the mail server is unavailable: {0}")]
    Unavailable(String),
    /// It got all of the mail and gave no answer. It may or may not have taken it: try again with the same [`MessageId`], and not often.
    #[error("the mail server got the mail and did not answer: {0}")]
    InDoubt(String),
    /// It got the mail so often without an answer that it is not sent again.
    #[error("the mail server got the mail {0} times and did not answer; its recipient may have it as often")]
    GivenUp(u32),
    /// It does not let us in, or is not whom it should be: somebody must look at the settings.
    #[error("the mail server cannot be used, see mail.smtp: {0}")]
    Misconfigured(String),
    /// It refuses the recipient (5xx), and will refuse again.
    #[error("the mail server refuses the recipient: {0}")]
    RecipientRefused(String),
    /// It refuses this mail, or us as its sender (5xx), and will refuse again. It says nothing about the recipient.
    #[error("the mail server refuses the mail: {0}")]
    Refused(String),
}

impl MailError {
    /// Whether the same mail may be taken later.
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::InDoubt(_) | Self::Misconfigured(_) => true,
            Self::GivenUp(_) | Self::Refused(_) | Self::RecipientRefused(_) => false,
        }
    }
}

/// That a mail was delivered, in the words of whoever took it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted(pub String);

/// Whoever delivers mail. It is called from jobs, never inside of a transaction.
#[async_trait]
pub trait Mailer: Send + Sync {
    /// Delivers a mail. When it fails, and when nobody waits for the end of it, the mail may have been
    /// delivered all the same; whoever tries again does so with the same [`MessageId`].
    async fn send(&self, mail: &Mail) -> Result<Accepted, MailError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_has_an_address_and_may_have_a_name() {
        let read = |text: &str| Mailbox::parse(text).map(|it| (it.name, it.email.as_str().to_owned()));
        let named = |name: &str, email: &str| Some((Some(Line::of(name)), email.to_owned()));
        assert_eq!(read("Ada@Example.com"), Some((None, "ada@example.com".into())));
        assert_eq!(read(" <ada@example.com>"), Some((None, "ada@example.com".into())));
        assert_eq!(
            read("Ada L. <ada@example.com>"),
            named("Ada L.", "ada@example.com")
        );
        assert_eq!(
            read("\"Ada, Inc\" <ada@example.com>"),
            named("Ada, Inc", "ada@example.com")
        );
        for text in [
            "",
            "ada",
            "Ada <>",
            "Ada ada@example.com",
            "Ada <ada@example.com> x",
            "A\r\nBcc: e@example.com <ada@example.com>",
            "Ada < ada@example.com >",
        ] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }
}
