use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;

use async_trait::async_trait;
use tenantry_domain::kernel::{HostResolver, Unresolved};

/// What host names mean in a world: every name stands for a public address unless it is told otherwise.
#[derive(Debug, Default)]
pub struct KnownHosts(Mutex<BTreeMap<String, Vec<IpAddr>>>);

impl KnownHosts {
    /// From now on the name means these addresses; nobody knows it when there are none.
    pub fn tell(&self, host: &str, addresses: &[IpAddr]) {
        self.0.lock().unwrap().insert(host.to_owned(), addresses.to_vec());
    }
}

#[async_trait]
impl HostResolver for KnownHosts {
    async fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, Unresolved> {
        let told = self.0.lock().unwrap().get(host).cloned();
        Ok(told.unwrap_or_else(|| vec![Ipv4Addr::new(93, 184, 216, 34).into()]))
    }
}
