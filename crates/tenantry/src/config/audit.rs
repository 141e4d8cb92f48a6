use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tenantry_domain::audit::{BatchLimits, StreamFrom};

use super::range::in_range;
use super::{ConfigurationError, Profile, Secret};

/// The audit log.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Audit {
    /// Where audit entries are streamed to.
    pub stream: Stream,
}

/// A receiver of audit entries, such as a SIEM.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stream {
    /// How it is reached.
    pub kind: StreamKind,
    /// Of `http`: where batches are posted to.
    pub url: String,
    /// Of `http`: what identifies this server, in `Authorization` behind the scheme; or a file with it.
    pub token: Secret,
    pub token_file: Option<PathBuf>,
    /// Of `http`: the scheme before the token.
    pub token_scheme: String,
    /// Of `syslog`: `host:port`, usually port 6514.
    pub address: String,
    /// Of `syslog`: files with the certificate and the private key (PEM) with which this server identifies itself.
    pub client_cert_file: Option<PathBuf>,
    pub client_key_file: Option<PathBuf>,
    /// Of `syslog`: take the end of the connection for the acknowledgment where the receiver sends no `close_notify`.
    pub accept_plain_close: bool,
    /// A file with the certificates (PEM) trusted to sign the receiver's; those of the system when absent.
    pub ca_file: Option<PathBuf>,
    /// Where the stream of a log begins: with the next entry, or the oldest that is kept.
    pub from: StreamFrom,
    /// How long the receiver may take for a batch.
    pub timeout_ms: u64,
    /// The most records of a batch, and the most bytes of it.
    pub batch_records: u64,
    pub batch_bytes: u64,
}

/// How a receiver of audit entries is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamKind {
    /// There is none.
    #[default]
    Off,
    /// HTTP with NDJSON.
    Http,
    /// Syslog (RFC 5424) over TLS.
    Syslog,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            kind: StreamKind::Off,
            url: String::new(),
            token: Secret::default(),
            token_file: None,
            token_scheme: "Bearer".into(),
            address: String::new(),
            client_cert_file: None,
            client_key_file: None,
            accept_plain_close: false,
            ca_file: None,
            from: StreamFrom::Now,
            timeout_ms: 10_000,
            batch_records: 500,
            batch_bytes: 1_000_000,
        }
    }
}

impl Stream {
    /// How long the receiver may take for a batch.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    /// How much is sent at once.
    pub fn limits(&self) -> BatchLimits {
        let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        BatchLimits {
            records: size(self.batch_records),
            bytes: size(self.batch_bytes),
        }
    }

    /// The host and port of `address`; an IPv6 address is in brackets.
    pub fn host_and_port(&self) -> Option<(String, u16)> {
        let (host, port) = self.address.rsplit_once(':')?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_name = !host.is_empty() && !host.contains([':', '/', '@', ' ', '[', ']']);
        let port = port.parse().ok().filter(|port| *port > 0)?;
        match bare {
            Some(bare) => bare
                .parse::<std::net::Ipv6Addr>()
                .ok()
                .map(|_| (bare.to_owned(), port)),
            None => is_name.then(|| (host.to_owned(), port)),
        }
    }

    /// The files that it names, to be read from another working directory.
    pub fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let files = [
            &mut self.token_file,
            &mut self.client_cert_file,
            &mut self.client_key_file,
            &mut self.ca_file,
        ];
        files.into_iter().flatten()
    }

    /// The content of one of its files.
    ///
    /// # Errors
    /// [`ConfigurationError`] with the name of the setting.
    pub fn read(key: &'static str, file: &Path) -> Result<Vec<u8>, ConfigurationError> {
        std::fs::read(file).map_err(|error| {
            let problem = format!("{}: {error}", file.display());
            ConfigurationError::invalid(key, problem)
        })
    }

    pub(super) fn check(&self, profile: Profile) -> Result<(), ConfigurationError> {
        in_range(&[
            ("audit.stream.timeout_ms", self.timeout_ms, 100, 60_000),
            ("audit.stream.batch_records", self.batch_records, 1, 500),
            ("audit.stream.batch_bytes", self.batch_bytes, 1_000, 100_000_000),
        ])?;
        let wrong = |key: &'static str, problem: &str| Err(ConfigurationError::invalid(key, problem));
        match self.kind {
            StreamKind::Off => Ok(()),
            StreamKind::Http => self.check_http(profile),
            StreamKind::Syslog if self.host_and_port().is_none() => wrong(
                "audit.stream.address",
                "must be host:port of a syslog receiver over TLS, for example siem.example.com:6514",
            ),
            StreamKind::Syslog if self.client_cert_file.is_some() != self.client_key_file.is_some() => wrong(
                "audit.stream.client_key_file",
                "goes together with audit.stream.client_cert_file: set both or none",
            ),
            StreamKind::Syslog => Ok(()),
        }
    }

    fn check_http(&self, profile: Profile) -> Result<(), ConfigurationError> {
        let wrong = |key: &'static str, problem: &str| Err(ConfigurationError::invalid(key, problem));
        let url = self.url.parse::<url::Url>().ok().filter(url::Url::has_host);
        let has_login = |url: &url::Url| !url.username().is_empty() || url.password().is_some();
        if url.as_ref().is_some_and(has_login) {
            return wrong(
                "audit.stream.url",
                "must have no user and password; set audit.stream.token",
            );
        }
        let (is_known, problem) = match (url.as_ref().map(url::Url::scheme), profile) {
            (scheme, Profile::Production) => (
                scheme == Some("https"),
                "must be the https address of a receiver, for example https://siem.example.com/ingest",
            ),
            (scheme, _) => (
                matches!(scheme, Some("http" | "https")),
                "must be the http or https address of a receiver, for example http://127.0.0.1:9514/",
            ),
        };
        if !is_known {
            return wrong("audit.stream.url", problem);
        }
        if !self.token.is_empty() && self.token_file.is_some() {
            return wrong(
                "audit.stream.token_file",
                "must be unset when audit.stream.token is set",
            );
        }
        Ok(())
    }
}
