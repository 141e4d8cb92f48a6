//! Outgoing webhooks: endpoints, which URLs and events they have, their secrets, what became of an attempt, when the next one is due, and when
//! an endpoint is disabled. The port that sends is here too; what happens on the network is in `tenantry-webhooks`.
//!
//! May use: `kernel`, `identity`.

mod custom_headers;
mod deliveries;
mod disabling;
mod endpoint;
mod endpoint_url;
mod event_filter;
mod lane;
mod message_id;
mod network_rules;
mod outcome;
mod retry_after;
mod schedule;
mod secret;
mod sender;

pub use custom_headers::CustomHeaders;
pub use deliveries::{
    AttemptLatency, AttemptResult, DeliveryState, DeliveryStats, DueDelivery, MessageDelivery,
    RecordedAttempt, Recovery, TEST_MESSAGE, WebhookDeliveries, WebhookMessage, message_body, test_data,
};
pub use disabling::{DisableReason, DisablingRule, EndpointStep, FailureStreak};
pub use endpoint::{
    EndpointCredentials, EndpointState, NewWebhookEndpoint, WebhookEndpoint, WebhookEndpointPatch,
    WebhookEndpoints,
};
pub use endpoint_url::{EndpointRules, EndpointUrl, EndpointUrlError};
pub use event_filter::{EventFilter, EventPattern, EventType};
pub use lane::{Backlog, DueLanes, Lane, LaneLease, LaneState, WebhookLanes};
pub use message_id::MessageId;
pub use network_rules::{NetworkRules, NetworkRulesError};
pub use outcome::{Answer, ConnectionFault, DeliveryOutcome, DeliveryPhase, excerpt};
pub use retry_after::{LONGEST_RETRY_AFTER, retry_after};
pub use schedule::{NextStep, RetrySchedule, ScheduleError};
pub use secret::{EndpointSecrets, NewSecret, SecretError, SignatureKind, SigningSecret, WebhookKeys};
pub use sender::{Delivery, SendError, WebhookRequest, WebhookSender};
