use serde::{Deserialize, Serialize};

use super::{ConfigurationError, Secret};

/// Traces, logs and metrics, sent to a collector with OTLP over HTTP (protobuf).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tracing {
    /// The collector, `http://host[:port][/path]` or `https://…`; `/v1/traces` and its like are appended. Empty = nothing is
    /// sent.
    pub otlp_endpoint: String,
    /// Headers of each request, `name=value,name=value`, percent-encoded as in `OTEL_EXPORTER_OTLP_HEADERS`.
    pub otlp_headers: Secret,
    /// What is sent.
    pub otlp_signals: Vec<OtlpSignal>,
    /// The share of the traces beginning here that is sent, 0 to 1. The decision in a caller's `traceparent` stands.
    pub sampling_ratio: f64,
    /// The name under which this service appears.
    pub service_name: String,
}

/// What can be sent to a collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OtlpSignal {
    Traces,
    Logs,
    Metrics,
}

impl OtlpSignal {
    /// Its name in settings and in the paths of collectors.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Logs => "logs",
            Self::Metrics => "metrics",
        }
    }
}

impl Default for Tracing {
    fn default() -> Self {
        Self {
            otlp_endpoint: String::new(),
            otlp_headers: Secret::default(),
            otlp_signals: vec![OtlpSignal::Traces],
            sampling_ratio: 1.0,
            service_name: "tenantry".into(),
        }
    }
}

impl Tracing {
    /// Whether a signal is sent.
    pub fn sends(&self, signal: OtlpSignal) -> bool {
        !self.otlp_endpoint.is_empty() && self.otlp_signals.contains(&signal)
    }

    /// The headers, decoded; `None` when they cannot be read.
    pub fn headers(&self) -> Option<Vec<(String, String)>> {
        let pairs = self.otlp_headers.reveal().split(',').map(str::trim);
        let read = |pair: &str| {
            let (name, value) = pair.split_once('=')?;
            let (name, value) = (name.trim(), decoded(value.trim())?);
            let is_name = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
            let is_value = |c: u8| c == b' ' || c.is_ascii_graphic();
            let holds = !name.is_empty() && name.bytes().all(is_name) && value.bytes().all(is_value);
            holds.then(|| (name.to_owned(), value))
        };
        pairs.filter(|pair| !pair.is_empty()).map(read).collect()
    }

    pub(super) fn check(&self) -> Result<(), ConfigurationError> {
        let host = self
            .otlp_endpoint
            .strip_prefix("http://")
            .or_else(|| self.otlp_endpoint.strip_prefix("https://"));
        let plain =
            |rest: &str| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(['?', '#', '@', ' ']);
        if !self.otlp_endpoint.is_empty() && !host.is_some_and(plain) {
            let problem = "must be http://host[:port] or https://host[:port], with a path or without; \
                           credentials belong into tracing.otlp_headers";
            return Err(ConfigurationError::invalid("tracing.otlp_endpoint", problem));
        }
        if self.headers().is_none() {
            let problem = "must be name=value,name=value, with other characters than printable ASCII, and commas, as %XX";
            return Err(ConfigurationError::invalid("tracing.otlp_headers", problem));
        }
        if !(0.0..=1.0).contains(&self.sampling_ratio) {
            let problem = format!("must be in 0..=1, is {}", self.sampling_ratio);
            return Err(ConfigurationError::invalid("tracing.sampling_ratio", problem));
        }
        Ok(())
    }
}

/// Text without percent-encoding; `None` when it is broken.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}
