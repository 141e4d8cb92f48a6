//! Stripe as the payment provider: the adapter of [`tenantry_domain::billing::PaymentProvider`] on async-stripe.
//!
//! It speaks API version 2026-09-30.endive, the one that async-stripe pins. Webhook endpoints have to be
//! pinned to the same version; what another version sends is read all the same as far as it is needed.
//!
//! Each call is made once: whoever calls tries again, with the same key, as
//! [`tenantry_domain::billing::ProviderError`] says.

mod catalogue;
mod event;
mod failure;
mod payments;
mod publish;
mod reading;

use std::sync::Arc;
use std::time::Duration;

use stripe::{Client, ClientBuilder};
use tenantry_domain::billing::ProviderError;
use tenantry_domain::kernel::Clock;
use url::Url;

use crate::catalogue::Catalogue;
pub use crate::publish::Published;

/// The API version whose shapes are understood; webhook endpoints are pinned to it.
pub const API_VERSION: &str = "2026-09-30.endive";

/// How Stripe is reached.
#[derive(Clone)]
pub struct StripeConfig {
    /// `sk_live_…`, `sk_test_…`, or a restricted key (`rk_…`).
    pub secret_key: String,
    /// The secrets of webhook endpoints (`whsec_…`); several while one takes the place of another.
    pub webhook_secrets: Vec<String>,
    /// Somebody else than Stripe, for tests; `None` is Stripe.
    pub api_base: Option<Url>,
    /// How long a call may take.
    pub timeout: Duration,
    /// The clock of a fake that is moved by hand; `None` is that of everyone.
    pub clock: Option<Arc<dyn Clock>>,
}

impl std::fmt::Debug for StripeConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Secrets are never printed.
        f.debug_struct("StripeConfig")
            .field("webhook_secrets", &self.webhook_secrets.len())
            .field("api_base", &self.api_base.as_ref().map(Url::as_str))
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// The payment provider's port over Stripe's API.
pub struct StripePayments {
    client: Client,
    clock: Option<Arc<dyn Clock>>,
    webhook_secrets: event::Secrets,
    catalogue: Catalogue,
}

impl std::fmt::Debug for StripePayments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StripePayments").finish_non_exhaustive()
    }
}

impl StripePayments {
    /// Makes ready to call; nothing is called yet.
    ///
    /// # Errors
    /// [`ProviderError::Unauthenticated`] when the key cannot be sent at all.
    pub fn new(config: &StripeConfig) -> Result<Self, ProviderError> {
        let mut builder = ClientBuilder::new(config.secret_key.clone()).timeout(config.timeout);
        if let Some(base) = &config.api_base {
            // It is put before `v1/…` as it is.
            builder = builder.url(format!("{}/", base.as_str().trim_end_matches('/')));
        }
        let client = builder.build().map_err(|_| ProviderError::Unauthenticated)?;
        Ok(Self {
            client,
            clock: config.clock.clone(),
            webhook_secrets: event::Secrets::new(&config.webhook_secrets),
            catalogue: Catalogue::default(),
        })
    }
}
