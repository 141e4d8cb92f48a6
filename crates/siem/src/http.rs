use std::time::Duration;

use async_trait::async_trait;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use tenantry_domain::audit::{AuditSink, SinkError, StreamRecord};
use url::Url;

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
        let answer = answer.map_err(|error| unavailable(cause(&error.without_url()), None))?;
        let status = answer.status();
        let retry_after = retry_after(answer.headers());
        // The rest of the answer is not read: its status says all.
        match status {
            status if status.is_success() => Ok(()),
            StatusCode::PAYLOAD_TOO_LARGE => Err(SinkError::TooLarge),
            // Of these a later attempt may succeed, and other records would not now.
            StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::PROXY_AUTHENTICATION_REQUIRED
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS => Err(unavailable(format!("status {status}"), retry_after)),
            status if status.is_client_error() => Err(SinkError::Refused(format!("status {status}"))),
            status => Err(unavailable(format!("status {status}"), retry_after)),
        }
    }
}

/// An error with its causes: the first alone says only that a request was not sent.
fn cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

fn unavailable(problem: String, retry_after: Option<Duration>) -> SinkError {
    SinkError::Unavailable { problem, retry_after }
}

/// What the receiver asks to wait, in seconds. The form with a date is not read: clocks differ.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}
