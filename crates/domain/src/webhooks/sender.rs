use std::time::Duration;

use async_trait::async_trait;

use crate::kernel::Time;
use crate::webhooks::custom_headers::CustomHeaders;
use crate::webhooks::endpoint_url::EndpointUrl;
use crate::webhooks::message_id::MessageId;
use crate::webhooks::outcome::DeliveryOutcome;
use crate::webhooks::secret::{SecretError, SigningSecret};

/// One attempt to deliver a message to an endpoint. `Debug` shows neither its body nor what is secret.
#[derive(Clone)]
pub struct WebhookRequest {
    /// Identifies the message, in each attempt.
    pub id: MessageId,
    /// The time of the attempt. Receivers refuse what is more than five minutes old.
    pub at: Time,
    /// Where it goes.
    pub url: EndpointUrl,
    /// The secrets that sign it, one at least; the receiver accepts it when it knows one of them.
    pub secrets: Vec<SigningSecret>,
    /// What the tenant adds to the request.
    pub headers: CustomHeaders,
    /// The body, JSON.
    pub body: String,
}

impl std::fmt::Debug for WebhookRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookRequest")
            .field("id", &self.id)
            .field("at", &self.at)
            .field("url", &self.url)
            .finish_non_exhaustive()
    }
}

/// What became of an attempt, and how long it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The answer, or why there is none.
    pub outcome: DeliveryOutcome,
    /// From the beginning of the attempt, with the name's resolution, to its end.
    pub latency: Duration,
}

/// Why a message was not sent. It is a mistake of the server and says nothing about the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no secret to sign with.
    #[error("the endpoint has no secret")]
    NoSecret,
    /// A secret cannot be used.
    #[error("a secret of the endpoint cannot be used: it {0}")]
    Secret(#[from] SecretError),
    /// The path or a header cannot be written, which the checks of them should have found.
    #[error("the path or a header of the endpoint cannot be sent")]
    Request,
}

/// Signs and sends webhooks.
#[async_trait]
pub trait WebhookSender: Send + Sync {
    /// Makes one attempt. It ends within the sender's timeouts.
    ///
    /// # Errors
    /// [`SendError`] before anything is sent. What happens on the network is an outcome.
    async fn send(&self, request: WebhookRequest) -> Result<Delivery, SendError>;
}
