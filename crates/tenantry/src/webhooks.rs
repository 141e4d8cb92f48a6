//! Outgoing webhooks: what the configuration says of their sender.

use std::sync::Arc;
use std::time::Duration;

use tenantry_dns::{DnsConfig, HickoryDns};
use tenantry_domain::webhooks::WebhookSender;
use tenantry_tenancy::webhooks::dispatcher::{Dispatcher, DispatcherConfig};
use tenantry_webhooks::{HttpWebhookSender, SenderConfig, SenderSetupError, Timeouts};

use crate::boot::{Booted, pool};
use crate::config::{Configuration, ConfigurationError};

/// The part of the connections beside those of the threads that the dispatcher may use: one of so many.
const CONNECTIONS: usize = 4;

/// The most transactions of the dispatcher at once.
const MOST_TRANSACTIONS: usize = 8;

/// What signs and sends webhooks. A machine without name servers or CA certificates of its own has none: that is logged, and everything
/// else works.
pub fn sender(config: &Configuration) -> Result<Option<Arc<dyn WebhookSender>>, ConfigurationError> {
    let (webhooks, domains) = (&config.webhooks, &config.domains);
    let [connect, head, body] = webhooks.timeouts();
    let authorities = webhooks.ca_file.as_deref().map(|file| {
        std::fs::read(file).map_err(|error| {
            let problem = format!("{}: {error}", file.display());
            ConfigurationError::invalid("webhooks.ca_file", problem)
        })
    });
    let settings = SenderConfig {
        rules: webhooks.rules()?,
        timeouts: Timeouts { connect, head, body },
        authorities: authorities.transpose()?,
        ..SenderConfig::default()
    };
    let dns = HickoryDns::new(&DnsConfig {
        servers: domains.name_servers.clone(),
        timeout: connect.min(Duration::from_millis(domains.timeout_ms)),
        ..DnsConfig::default()
    });
    let dns = match dns {
        Ok(dns) => Arc::new(dns),
        Err(error) if domains.name_servers.is_empty() => return Ok(without(&error)),
        Err(error) => {
            return Err(ConfigurationError::invalid(
                "domains.name_servers",
                error.to_string(),
            ));
        }
    };
    match HttpWebhookSender::new(&settings, dns) {
        Ok(sender) => Ok(Some(Arc::new(sender))),
        Err(error @ SenderSetupError::NoAuthorities) => Ok(without(&error)),
        Err(error) => Err(ConfigurationError::invalid("webhooks.ca_file", error.to_string())),
    }
}

/// The dispatcher of a server that has a worker.
pub fn dispatcher(booted: &Booted, config: &Configuration) -> Option<Dispatcher> {
    if !config.jobs.enabled {
        return None;
    }
    let connections = pool(config, config.database.pool_size).shared_connections();
    let transactions = (connections / CONNECTIONS).clamp(1, MOST_TRANSACTIONS);
    let settings = DispatcherConfig {
        transactions,
        ..DispatcherConfig::default()
    };
    Dispatcher::new(Arc::clone(&booted.app), settings)
}

fn without(error: &dyn std::fmt::Display) -> Option<Arc<dyn WebhookSender>> {
    tracing::warn!(%error, "webhooks are not sent");
    None
}
