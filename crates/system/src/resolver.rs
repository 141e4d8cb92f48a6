use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use tenantry_domain::kernel::{HostResolver, Unresolved};

/// Asks the machine's own resolver, and does not wait for it for long.
#[derive(Debug, Clone, Copy)]
pub struct SystemResolver {
    patience: Duration,
}

impl Default for SystemResolver {
    /// Two seconds: a person waits for the answer.
    fn default() -> Self {
        Self {
            patience: Duration::from_secs(2),
        }
    }
}

#[async_trait]
impl HostResolver for SystemResolver {
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, Unresolved> {
        // As whoever fetches will ask: the machine's own table of hosts and its search domains included.
        let name = format!("{}:443", host.trim_end_matches('.'));
        let asked = tokio::time::timeout(self.patience, tokio::net::lookup_host(name)).await;
        let found = asked.map_err(|_| Unresolved)?.map_err(|_| Unresolved)?;
        Ok(found.map(|address| address.ip()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_are_resolved_and_what_is_none_is_not() {
        let resolver = SystemResolver::default();
        let local = resolver.resolve("localhost").await.unwrap();
        assert!(
            !local.is_empty() && local.iter().all(IpAddr::is_loopback),
            "{local:?}"
        );
        assert_eq!(resolver.resolve("nothing.invalid").await, Err(Unresolved));
    }
}
