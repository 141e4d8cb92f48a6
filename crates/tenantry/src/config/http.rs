use serde::{Deserialize, Serialize};

use super::ConfigurationError;
use super::range::{HOUR_MS, in_range};

/// What HTTP looks like from outside.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// `example.com` makes `acme.example.com` name the tenant with the subdomain `acme`; empty = not used.
    pub base_domain: String,
    pub body_limit_bytes: usize,
    /// Origins that browsers may call from; `*` = any; none = no CORS.
    pub cors_origins: Vec<String>,
    /// Send `Strict-Transport-Security`; only when every client comes by https.
    pub hsts: bool,
    /// Take the caller's address from the last hop of `X-Forwarded-For`; only behind a proxy that sets it.
    pub trust_forwarded_for: bool,
    /// How long a request may take until its answer begins.
    pub request_timeout_ms: u64,
    /// How long a client may take to send the head of a request, and its body.
    pub header_timeout_ms: u64,
    pub body_timeout_ms: u64,
    /// How long a connection may be idle between requests.
    pub keep_alive_ms: u64,
    /// How long a connection that is closed here may take to be closed by the client.
    pub disconnect_timeout_ms: u64,
    /// How many streams of events may be open here, of all tenants and of one.
    pub event_streams: usize,
    pub event_streams_per_tenant: usize,
    /// How long a stream stays open; then the client opens it again.
    pub event_stream_seconds: u64,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            base_domain: String::new(),
            body_limit_bytes: 1_048_576,
            cors_origins: Vec::new(),
            hsts: false,
            trust_forwarded_for: false,
            request_timeout_ms: 30_000,
            header_timeout_ms: 10_000,
            body_timeout_ms: 15_000,
            keep_alive_ms: 75_000,
            disconnect_timeout_ms: 1_000,
            event_streams: 10_000,
            event_streams_per_tenant: 100,
            event_stream_seconds: 600,
        }
    }
}

impl Http {
    /// Whether each number is in its range.
    pub(super) fn check(&self) -> Result<(), ConfigurationError> {
        in_range(&[
            (
                "http.body_limit_bytes",
                self.body_limit_bytes as u64,
                1_024,
                104_857_600,
            ),
            ("http.request_timeout_ms", self.request_timeout_ms, 100, HOUR_MS),
            ("http.header_timeout_ms", self.header_timeout_ms, 100, HOUR_MS),
            ("http.body_timeout_ms", self.body_timeout_ms, 100, HOUR_MS),
            ("http.keep_alive_ms", self.keep_alive_ms, 100, HOUR_MS),
            (
                "http.disconnect_timeout_ms",
                self.disconnect_timeout_ms,
                1,
                60_000,
            ),
            ("http.event_streams", self.event_streams as u64, 1, 1_000_000),
            (
                "http.event_streams_per_tenant",
                self.event_streams_per_tenant as u64,
                1,
                1_000_000,
            ),
            ("http.event_stream_seconds", self.event_stream_seconds, 1, 86_400),
        ])
    }
}
