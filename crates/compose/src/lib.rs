//! The use cases put together over PostgreSQL, without HTTP.
//!
//! The crate `tenantry` builds on it and adds HTTP, Redis, Stripe and commands. A service with another web framework uses it
//! as it is: [`Configuration`] reads the configuration that it shares with the server, [`application`] gives the use cases, and
//! [`beside`] runs the service with the loops that they need.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use tenantry_compose::{Configuration, application};
//!
//! let configuration = Configuration::load()?;
//! let app = application(&configuration.base()?, configuration.policy()?)?;
//! tenantry_compose::read_keys(&app).await?;
//! tenantry_compose::beside(&app, async { /* serve */ }).await;
//! # Ok(())
//! # }
//! ```
#![deny(missing_docs)]

mod base;
mod caches;
mod configuration;
mod configuration_error;
mod ports;
mod secret;
mod signing_keys;
mod upkeep;

pub use base::{Base, ComposeError, PasswordHashing, Pools};
pub use caches::Caches;
pub use configuration::{Configuration, Credentials, DatabaseUrls, Proxy};
pub use configuration_error::ConfigurationError;
pub use ports::{application, ports};
pub use secret::Secret;
pub use signing_keys::{DEVELOPMENT_MARK, NO_SIGNING_KEY, SigningKeyConfig};
pub use upkeep::{
    Upkeep, beside, chain_audit, deliver_webhooks, export_events, follow_keys, mail_workspaces,
    publish_events, raise_alerts, read_keys, store_notes, stream_audit,
};
