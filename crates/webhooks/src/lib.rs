//! Signs and sends outgoing webhooks by the rules of Standard Webhooks: the adapters of [`tenantry_domain::webhooks::WebhookSender`] and
//! [`tenantry_domain::webhooks::WebhookKeys`].
//!
//! Tenants choose where webhooks go, so each attempt is guarded against requests to the inside (SSRF). The URL is checked by the present
//! configuration, its name is resolved once, every address of the answer is checked, and the connection is opened to a checked address,
//! with the name in TLS and in `Host`. Redirects are not followed, and no proxy of the environment is used: there is no code for either.
//!
//! Receivers are not trusted either: the time of each part of an attempt, the headers, the body and all bytes of an answer are bounded.
//!
//! HTTP is hyper's connection of HTTP/1.1, and the pool is this crate's. The pools of reqwest and hyper-util are keyed by the name, so a
//! connection of theirs says nothing about the address that it leads to. Here the key has the checked address. A client for each request,
//! which reqwest's `resolve_to_addrs` would need, costs a handshake for each.
#![deny(missing_docs)]

mod bounded;
mod connection;
mod fault;
mod message;
mod names;
mod pool;
mod secret;
mod sender;
mod tls;

pub use secret::StandardKeys;
pub use sender::{HttpWebhookSender, SenderConfig, SenderSetupError, Timeouts};
