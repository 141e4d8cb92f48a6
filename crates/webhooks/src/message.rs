use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Uri};
use tenantry_domain::kernel::Time;
use tenantry_domain::webhooks::{EndpointUrl, SendError, WebhookRequest};

use crate::secret::{SigningKey, signatures};

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// A request that is signed and ready to be written, more than once where a connection turns out to be closed.
pub(crate) struct SignedMessage {
    pub(crate) url: EndpointUrl,
    pub(crate) at: Time,
    target: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl SignedMessage {
    pub(crate) fn new(request: WebhookRequest) -> Result<Self, SendError> {
        if request.secrets.is_empty() {
            return Err(SendError::NoSecret);
        }
        let keys = request
            .secrets
            .iter()
            .map(|secret| SigningKey::parse(secret.expose()));
        let keys: Vec<_> = keys.collect::<Result<_, _>>()?;
        let timestamp = request.at.timestamp();
        let signature = signatures(&keys, request.id.as_str(), timestamp, &request.body);
        let text = |value: &str| HeaderValue::from_str(value).map_err(|_| SendError::Request);
        let mut headers = HeaderMap::new();
        // Some firewalls refuse requests without it.
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        for (name, value) in request.headers.iter() {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| SendError::Request)?;
            headers.insert(name, text(value)?);
        }
        // Last, so that nothing of a tenant's takes their place.
        headers.insert(HOST, text(&request.url.authority())?);
        headers.insert(USER_AGENT, HeaderValue::from_static("tenantry-webhooks"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(WEBHOOK_ID, text(request.id.as_str())?);
        headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(timestamp));
        headers.insert(WEBHOOK_SIGNATURE, text(&signature)?);
        Ok(Self {
            target: request.url.target().parse().map_err(|_| SendError::Request)?,
            url: request.url,
            at: request.at,
            headers,
            body: request.body.into(),
        })
    }

    pub(crate) fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tenantry_domain::webhooks::{CustomHeaders, EndpointRules, MessageId, SigningSecret};

    use super::*;

    proptest! {
        /// A URL that cannot be written would fail at each delivery, long after it was accepted.
        #[test]
        fn accepted_url_can_be_sent(path in "[ -~é😀\\u{80}-\\u{ff}]{0,60}") {
            let Ok(url) = EndpointRules::default().parse(&format!("https://a.example/{path}")) else {
                return Ok(());
            };
            let target = url.target();
            let message = SignedMessage::new(WebhookRequest {
                id: MessageId::parse("msg_1").unwrap(),
                at: Time::from_timestamp(1_800_000_000, 0).unwrap(),
                url,
                secrets: vec![SigningSecret::stored("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into())],
                headers: CustomHeaders::default(),
                body: "{}".into(),
            });
            let message = message.unwrap();
            prop_assert_eq!(message.target.to_string(), target);
            prop_assert!(message.target.host().is_none());
        }
    }
}
