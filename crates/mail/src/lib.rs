//! Renders and delivers mail: the templates of mail ([`CompiledTemplates`]), the adapter of
//! [`tenantry_domain::operations::Mailer`] on lettre, which hands it to a server over SMTP, and one that writes it to the log
//! where there is no server.
//!
//! Each mail is handed over once: whoever calls tries again, with the same
//! [`MessageId`](tenantry_domain::operations::MessageId), as [`tenantry_domain::operations::MailError`] says.
#![deny(missing_docs)]

mod connection;
mod log;
mod message;
mod smtp;
mod tally;
mod templates;

use std::path::PathBuf;
use std::time::Duration;

use tenantry_domain::operations::Mailbox;

pub use crate::log::LogMailer;
pub use crate::smtp::SmtpMailer;
pub use crate::tally::{MailStats, TalliedMailer};
pub use crate::templates::CompiledTemplates;

/// How the mail server is reached.
#[derive(Clone)]
pub struct SmtpConfig {
    /// Its name or address. The certificate has to be for it.
    pub host: String,
    /// Its port; usually 587 with [`Tls::Starttls`], 465 with [`Tls::Implicit`], 25 with [`Tls::None`].
    pub port: u16,
    /// Whether and when the connection is encrypted.
    pub tls: Tls,
    /// Whom to log in as, if at all. Only over TLS.
    pub login: Option<Login>,
    /// A file with the certificates (PEM) of those whose word is taken for the server's; those of the system
    /// when absent.
    pub ca_file: Option<PathBuf>,
    /// How long it may take until mail can be handed over: connection, encryption, greeting and login.
    pub connect_timeout: Duration,
    /// How long handing over a mail may take after that.
    pub timeout: Duration,
    /// How many connections are kept for the next mails.
    pub pool_size: usize,
    /// Who mail is from.
    pub from: Mailbox,
}

impl std::fmt::Debug for SmtpConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmtpConfig")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("tls", &self.tls)
            .field("login", &self.login)
            .field("from", &self.from)
            .finish_non_exhaustive()
    }
}

/// Who logs in at the mail server. Its password is never printed.
#[derive(Clone)]
pub struct Login {
    /// The user name of the SMTP account.
    pub user: String,
    /// The password of the SMTP account.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// Whether and when a connection is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// It begins in the clear and is encrypted before anything is said; a server that does not offer that is
    /// not used (RFC 3207).
    Starttls,
    /// It is encrypted from the beginning (RFC 8314).
    Implicit,
    /// It is not.
    None,
}

/// The settings do not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SmtpConfigError {
    /// The file of certificates cannot be read, or holds none.
    #[error("{0}")]
    Trusted(String),
    /// Nothing can be encrypted with them.
    #[error("{0}")]
    Tls(String),
}
