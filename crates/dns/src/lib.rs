//! The port of DNS over hickory-resolver: a stub resolver that asks the configured name servers, or those of the system, over UDP and,
//! where an answer is cut, over TCP. Nothing is cached: a person who has just set a record asks again.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as WireError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, Record, RecordType};
use hickory_resolver::{Resolver, TokioResolver};
use tenantry_domain::tenant::{Dns, DnsError, DnsRoute, TxtRecords};
use tokio::sync::Semaphore;

/// The file in which the system names its name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// How many names and how many addresses of an answer are looked at.
const MOST: usize = 64;

/// The most bytes of a TXT record that are looked at: the proof has less than 100.
const LONGEST_TXT: usize = 1_024;

/// Which name servers are asked, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsConfig {
    /// The name servers; those of the system when empty.
    pub servers: Vec<SocketAddr>,
    /// The timeout of a whole lookup, with its second attempt.
    pub timeout: Duration,
    /// The most lookups of this resolver at once, over all tenants.
    pub at_once: usize,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: Duration::from_secs(5),
            at_once: 64,
        }
    }
}

/// Why there is no resolver.
#[derive(Debug, thiserror::Error)]
pub enum DnsSetupError {
    /// The system's file cannot be read.
    #[error("{RESOLV_CONF} cannot be read ({0}); name servers can be set instead")]
    File(#[from] std::io::Error),
    /// It names no server.
    #[error("{RESOLV_CONF} names no name server; name servers can be set instead")]
    NoServer,
    /// The resolver cannot be built.
    #[error("{0}")]
    Resolver(String),
}

/// A resolver over UDP and TCP.
pub struct HickoryDns {
    resolver: TokioResolver,
    timeout: Duration,
    turns: Semaphore,
}

impl std::fmt::Debug for HickoryDns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HickoryDns")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

impl HickoryDns {
    /// A resolver. It asks nothing yet.
    ///
    /// # Errors
    /// [`DnsSetupError`].
    pub fn new(config: &DnsConfig) -> Result<Self, DnsSetupError> {
        let servers = if config.servers.is_empty() {
            of_system(&std::fs::read_to_string(RESOLV_CONF)?)
        } else {
            config.servers.clone()
        };
        if servers.is_empty() {
            return Err(DnsSetupError::NoServer);
        }
        let servers = servers.into_iter().map(name_server).collect();
        let servers = ResolverConfig::from_parts(None, Vec::new(), servers);
        let mut builder = Resolver::builder_with_config(servers, TokioRuntimeProvider::default());
        *builder.options_mut() = options(config.timeout);
        let resolver = builder
            .build()
            .map_err(|error| DnsSetupError::Resolver(error.to_string()))?;
        Ok(Self {
            resolver,
            timeout: config.timeout,
            turns: Semaphore::new(config.at_once),
        })
    }

    /// The records of a type, with the aliases on the way. A lookup that waits too long for its turn has timed out.
    async fn look_up(&self, name: &str, kind: RecordType) -> Result<Vec<Record>, DnsError> {
        // The final dot keeps search domains away.
        let name = format!("{}.", name.trim_end_matches('.'));
        let asked = async {
            let _turn = self.turns.acquire().await.map_err(|_| DnsError::Failed)?;
            let found = self.resolver.lookup(name.as_str(), kind).await;
            found
                .map(|lookup| lookup.answers().to_vec())
                .map_err(|error| failure(&error))
        };
        let answered = tokio::time::timeout(self.timeout, asked).await;
        answered.map_err(|_| DnsError::Timeout)?
    }
}

#[async_trait]
impl Dns for HickoryDns {
    async fn txt(&self, name: &str) -> Result<TxtRecords, DnsError> {
        let records = self.look_up(name, RecordType::TXT).await?;
        let mut values = records.iter().filter_map(|record| match &record.data {
            RData::TXT(txt) => Some(text(&txt.txt_data)),
            _ => None,
        });
        let found: Vec<String> = values.by_ref().take(TxtRecords::MOST).collect();
        Ok(TxtRecords {
            cut: values.next().is_some(),
            values: found,
        })
    }

    async fn route(&self, name: &str) -> Result<DnsRoute, DnsError> {
        let mut route = DnsRoute::default();
        let (four, six) = tokio::join!(
            self.look_up(name, RecordType::A),
            self.look_up(name, RecordType::AAAA)
        );
        let records = match (four, six) {
            (Err(DnsError::NotFound), Err(DnsError::NotFound)) => return self.alias_only(name).await,
            (Err(error), Err(_)) => return Err(error),
            (four, six) => four
                .unwrap_or_default()
                .into_iter()
                .chain(six.unwrap_or_default()),
        };
        for record in records.take(2 * MOST) {
            add(&mut route, &record.data);
        }
        Ok(route)
    }
}

impl HickoryDns {
    /// An alias whose end has no address yet.
    async fn alias_only(&self, name: &str) -> Result<DnsRoute, DnsError> {
        let mut route = DnsRoute::default();
        match self.look_up(name, RecordType::CNAME).await {
            Ok(records) => records
                .iter()
                .take(MOST)
                .for_each(|record| add(&mut route, &record.data)),
            Err(DnsError::NotFound) => {}
            Err(error) => return Err(error),
        }
        Ok(route)
    }
}

fn add(route: &mut DnsRoute, data: &RData) {
    match data {
        RData::CNAME(name) => {
            let name = name.0.to_ascii();
            route.names.push(name.trim_end_matches('.').to_ascii_lowercase());
        }
        RData::A(address) => route.addresses.push(IpAddr::V4(address.0)),
        RData::AAAA(address) => route.addresses.push(IpAddr::V6(address.0)),
        _ => {}
    }
}

/// The texts of a record put together.
fn text(parts: &[Box<[u8]>]) -> String {
    let bytes: Vec<u8> = parts.iter().flatten().copied().take(LONGEST_TXT).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn failure(error: &NetError) -> DnsError {
    match error {
        NetError::Timeout => DnsError::Timeout,
        NetError::Dns(WireError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain | ResponseCode::NoError => DnsError::NotFound,
            _ => DnsError::Failed,
        },
        _ => DnsError::Failed,
    }
}

fn name_server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

fn options(timeout: Duration) -> ResolverOpts {
    let mut options = ResolverOpts::default();
    // Two attempts within the timeout of the whole.
    options.timeout = timeout / 2;
    options.attempts = 1;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.preserve_intermediates = true;
    options.edns0 = true;
    options
}

/// The name servers in a `resolv.conf`; an address may have a zone, which is of no use here.
fn of_system(file: &str) -> Vec<SocketAddr> {
    let server = |line: &str| {
        let mut words = line.split_whitespace();
        let address = words
            .next()
            .filter(|word| *word == "nameserver")
            .and(words.next())?;
        let address = address.split('%').next().unwrap_or(address);
        address.parse().ok().map(|ip: IpAddr| SocketAddr::new(ip, 53))
    };
    file.lines().filter_map(server).take(3).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_are_lines_of_a_file() {
        let file = "# nameserver 9.9.9.9\nsearch lan\nnameserver 127.0.0.53\nnameserver fe80::1%eth0 # a comment\nnameserver x\n";
        let found: Vec<String> = of_system(file).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["127.0.0.53:53", "[fe80::1]:53"]);
    }

    #[test]
    fn long_records_are_cut() {
        let parts = [vec![b'a'; 255].into_boxed_slice(), vec![0xff; 2_000].into()];
        assert!(text(&parts).chars().count() <= LONGEST_TXT);
    }
}
