use std::time::Duration;

use async_trait::async_trait;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use tenantry_domain::audit::{AuditSink, SinkError, StreamRecord};
use url::Url;

use crate::problem::problem;

/// How an HTTP receiver is reached.
#[derive(Clone)]
pub struct HttpReceiverConfig {
    /// Where batches are posted to.
    pub url: Url,
    /// The whole value of `Authorization`, such as `Bearer …`; no such header when absent.
    pub authorization: Option<String>,
    /// The certificates (PEM) trusted to sign the receiver's; those of the system when absent.
    pub authorities: Option<Vec<u8>>,
    /// How long connecting and answering may take together.
    pub timeout: Duration,
}

/// Posts batches as NDJSON: one JSON object a line. A 2xx answer acknowledges all of a batch.
#[derive(Debug)]
pub struct HttpReceiver {
    url: Url,
    client: reqwest::Client,
}

impl HttpReceiver {
    /// A receiver. It is not connected to yet.
    ///
    /// # Errors
    /// Why there is no HTTP client: a certificate that cannot be read, or a token with characters that no header has.
    pub fn new(config: HttpReceiverConfig) -> Result<Self, String> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        if let Some(authorization) = &config.authorization {
            let value = HeaderValue::from_str(authorization);
            let mut value = value.map_err(|_| "the token has characters that no header can have")?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let mut builder = reqwest::Client::builder()
            .timeout(config.timeout)
            .connect_timeout(config.timeout)
            .default_headers(headers)
            // Entries go to the configured address and to no other.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent("tenantry");
        if let Some(authorities) = &config.authorities {
            let read = reqwest::Certificate::from_pem_bundle(authorities);
            let certificates = read.map_err(|error| error.to_string())?;
            builder = builder.tls_certs_only(certificates);
        }
        Ok(Self {
            url: config.url,
            client: builder.build().map_err(|error| error.to_string())?,
        })
    }
}

#[async_trait]
impl AuditSink for HttpReceiver {
    async fn send(&self, records: &[StreamRecord]) -> Result<(), SinkError> {
        let size = records.iter().map(|record| record.line.len() + 1).sum();
        let mut body = String::with_capacity(size);
        for record in records {
            body.push_str(&record.line);
            body.push('\n');
        }
        let answer = self.client.post(self.url.clone()).body(body).send().await;
        match answer {
            Ok(answer) => acknowledged(answer.status(), retry_after(answer.headers())),
            Err(error) => {
                let is_away = error.is_connect();
                let problem = problem(&error.without_url());
                Err(match is_away {
                    true => unavailable(problem, None),
                    false => SinkError::Unacknowledged(problem),
                })
            }
        }
    }
}

/// What a status says of a batch. The rest of the answer is not read.
fn acknowledged(status: StatusCode, retry_after: Option<Duration>) -> Result<(), SinkError> {
    let problem = format!("status {status}");
    match status {
        status if status.is_success() => Ok(()),
        StatusCode::PAYLOAD_TOO_LARGE => Err(SinkError::TooLarge),
        // It asks for fewer requests, whatever is in them.
        StatusCode::TOO_MANY_REQUESTS => Err(unavailable(problem, retry_after)),
        StatusCode::SERVICE_UNAVAILABLE if retry_after.is_some() => Err(unavailable(problem, retry_after)),
        // A wrong token or address, or a firewall that rejects what is in this batch.
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND
        | StatusCode::METHOD_NOT_ALLOWED
        | StatusCode::PROXY_AUTHENTICATION_REQUIRED
        | StatusCode::REQUEST_TIMEOUT => Err(SinkError::Unacknowledged(problem)),
        status if status.is_client_error() => Err(SinkError::Refused(problem)),
        _ => Err(SinkError::Unacknowledged(problem)),
    }
}

fn unavailable(problem: String, retry_after: Option<Duration>) -> SinkError {
    SinkError::Unavailable { problem, retry_after }
}

/// What the receiver asks to wait, in seconds. The form with a date is not read: clocks differ.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(status: u16, retry_after: Option<u64>) -> &'static str {
        let status = StatusCode::from_u16(status).unwrap();
        match acknowledged(status, retry_after.map(Duration::from_secs)) {
            Ok(()) => "taken",
            Err(SinkError::Unavailable { .. }) => "unavailable",
            Err(SinkError::Unacknowledged(_)) => "unacknowledged",
            Err(SinkError::Refused(_)) => "refused",
            Err(SinkError::TooLarge) => "too large",
        }
    }

    /// Only a receiver that asks for fewer requests makes all logs wait at once: any other status may be about the content.
    #[test]
    fn status_says_whether_the_content_may_be_the_reason() {
        for (status, retry_after, expected) in [
            (200, None, "taken"),
            (204, None, "taken"),
            (302, None, "unacknowledged"),
            (400, None, "refused"),
            (401, None, "unacknowledged"),
            (403, None, "unacknowledged"),
            (403, Some(5), "unacknowledged"),
            (404, None, "unacknowledged"),
            (405, None, "unacknowledged"),
            (408, None, "unacknowledged"),
            (413, None, "too large"),
            (422, None, "refused"),
            (429, None, "unavailable"),
            (429, Some(5), "unavailable"),
            (500, None, "unacknowledged"),
            (502, None, "unacknowledged"),
            (503, None, "unacknowledged"),
            (503, Some(5), "unavailable"),
        ] {
            assert_eq!(kind(status, retry_after), expected, "{status} {retry_after:?}");
        }
    }
}
