//! The sender against receivers, name servers and certificates over real sockets. One server inside must never be reached.
#![expect(
    clippy::unwrap_used,
    reason = "in the helpers of tests too, a failure is a failed test"
)]

#[path = "webhooks/answers.rs"]
mod answers;
#[path = "webhooks/guarding.rs"]
mod guarding;
#[path = "webhooks/hostile.rs"]
mod hostile;
#[path = "webhooks/signing.rs"]
mod signing;
mod support;
#[path = "webhooks/tls.rs"]
mod tls;
