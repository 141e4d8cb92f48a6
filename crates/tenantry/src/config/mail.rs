use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tenantry_domain::operations::{MailLimits, Mailbox};

use super::range::in_range;
use super::{ConfigurationError, Secret};

/// Mail to people of tenants.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mail {
    /// Who mail is from: `no-reply@example.com`, or `Example <no-reply@example.com>`.
    pub from: String,
    /// Where people use the product; mails lead there.
    pub app_url: String,
    /// Where recipients of mail reach the API: links to unsubscribe lead there. Empty = `app_url`.
    pub api_url: String,
    /// Whether the log says who would have got which mail while there is no server to send it with.
    pub log_contents: bool,
    /// The maximum number of mails within a day to an address that its owner has not verified, from all tenants together.
    pub recipient_per_day: u32,
    /// The maximum number of mails within a day from a tenant to such addresses.
    pub tenant_per_day: u32,
    pub smtp: Smtp,
}

impl Default for Mail {
    fn default() -> Self {
        Self {
            from: String::new(),
            app_url: "http://127.0.0.1:8080/".into(),
            api_url: String::new(),
            log_contents: false,
            recipient_per_day: MailLimits::default().recipient,
            tenant_per_day: MailLimits::default().tenant,
            smtp: Smtp::default(),
        }
    }
}

/// The server that mail is handed to; without one it is written to the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Smtp {
    pub host: String,
    /// 0 = the usual one: 587 with `starttls`, 465 with `tls`, 25 with `none`.
    pub port: u16,
    pub tls: SmtpTls,
    /// Whom to log in as; empty = not at all.
    pub user: String,
    pub password: Secret,
    /// A file with the certificates (PEM) of those whose word is taken for the server's; those of the system
    /// when absent.
    pub ca_file: Option<PathBuf>,
    /// How long it may take until the server takes mail, and how long handing over a mail may take.
    pub connect_timeout_ms: u64,
    pub timeout_ms: u64,
    /// How many connections are kept for the next mails.
    pub pool_size: usize,
}

impl Default for Smtp {
    fn default() -> Self {
        Self {
            host: String::new(),
            port: 0,
            tls: SmtpTls::Starttls,
            user: String::new(),
            password: Secret::default(),
            ca_file: None,
            connect_timeout_ms: 5_000,
            timeout_ms: 30_000,
            pool_size: 2,
        }
    }
}

impl Smtp {
    /// Where the server listens.
    pub const fn port(&self) -> u16 {
        match (self.port, self.tls) {
            (0, SmtpTls::Starttls) => 587,
            (0, SmtpTls::Tls) => 465,
            (0, SmtpTls::None) => 25,
            (port, _) => port,
        }
    }
}

/// Whether and when the connection to the mail server is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// Before anything is said; a server that cannot is not used.
    Starttls,
    /// From the beginning.
    Tls,
    /// Never.
    None,
}

impl Mail {
    /// Where recipients of mail reach the API.
    pub fn api_address(&self) -> &str {
        if self.api_url.is_empty() {
            &self.app_url
        } else {
            &self.api_url
        }
    }

    /// Everything that sending relies on.
    pub fn check(&self) -> Result<(), ConfigurationError> {
        in_range(&[
            (
                "mail.smtp.connect_timeout_ms",
                self.smtp.connect_timeout_ms,
                100,
                60_000,
            ),
            (
                "mail.recipient_per_day",
                u64::from(self.recipient_per_day),
                1,
                10_000,
            ),
            (
                "mail.tenant_per_day",
                u64::from(self.tenant_per_day),
                1,
                10_000_000,
            ),
            ("mail.smtp.timeout_ms", self.smtp.timeout_ms, 100, 600_000),
            ("mail.smtp.pool_size", self.smtp.pool_size as u64, 1, 100),
        ])?;
        let wrong = |key: &'static str, problem: &str| Err(ConfigurationError::invalid(key, problem));
        let smtp = &self.smtp;
        if !is_address(&self.app_url) {
            return wrong(
                "mail.app_url",
                "must be an address that begins with https:// or http://",
            );
        }
        if !self.api_url.is_empty() && !is_address(&self.api_url) {
            return wrong(
                "mail.api_url",
                "must be an address that begins with https:// or http://",
            );
        }
        if !smtp.host.is_empty() || !self.from.is_empty() {
            self.sender()?;
        }
        if smtp
            .host
            .contains(|c: char| c.is_whitespace() || matches!(c, '/' | '@' | '[' | ']'))
        {
            return wrong(
                "mail.smtp.host",
                "must be the name or address of a server, and nothing else",
            );
        }
        if smtp.user.is_empty() != smtp.password.is_empty() {
            return wrong(
                "mail.smtp.password",
                "must be set with mail.smtp.user, and only then",
            );
        }
        if smtp.tls == SmtpTls::None && !smtp.user.is_empty() {
            return wrong(
                "mail.smtp.tls",
                "must be starttls or tls where a password is sent",
            );
        }
        if smtp.tls == SmtpTls::None && smtp.ca_file.is_some() {
            return wrong("mail.smtp.ca_file", "is of use with starttls or tls only");
        }
        Ok(())
    }

    /// Who mail is from.
    pub fn sender(&self) -> Result<Mailbox, ConfigurationError> {
        Mailbox::parse(&self.from).ok_or_else(|| {
            let problem = "must be no-reply@example.com, or Example <no-reply@example.com>";
            ConfigurationError::invalid("mail.from", problem)
        })
    }
}

/// Whether a text is an http or https address that can stand in a mail as it is.
fn is_address(text: &str) -> bool {
    let rest = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let plain = |rest: &str| !rest.starts_with('/') && rest.bytes().all(|byte| byte.is_ascii_graphic());
    text.len() <= 200 && rest.is_some_and(|rest| !rest.is_empty() && plain(rest))
}
