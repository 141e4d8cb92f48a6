use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::Duration;

use crate::kernel::{Seal, StoreError, TenantId, Time};

/// A data key of a tenant, sealed by the server's key. What is sealed for the tenant is sealed under its newest data key, so that
/// nobody can open it once the keys of the tenant are destroyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataKey {
    /// Its number in the tenant, from 1. A rotation adds the next one.
    pub number: i32,
    /// The key, sealed for [`DataKey::place`].
    pub sealed: Vec<u8>,
    /// When it was created.
    pub created_at: Time,
}

impl DataKey {
    /// The maximum number of data keys of a tenant: so many rotations wait for the former keys to be destroyed.
    pub const MOST: usize = 20;

    /// How long a former key is kept for values that are not sealed anew: answers to requests with an idempotency key (24 hours)
    /// and tokens in mails that wait to be sent (seven days). Servers cache keys for a minute.
    pub const KEPT: Duration = Duration::days(8);

    /// What a data key is sealed for: it opens in its own row alone.
    pub fn place(tenant: TenantId, number: i32) -> String {
        format!("data key {number} of tenant {tenant}")
    }

    /// The first bytes of all that is sealed under it.
    pub fn prefix(number: i32) -> [u8; 8] {
        let mut prefix = [0; 8];
        prefix[..4].copy_from_slice(MAGIC);
        prefix[4..].copy_from_slice(&number.to_be_bytes());
        prefix
    }
}

/// The first bytes of what is sealed under a data key. What is sealed by the server's key begins with a random nonce.
const MAGIC: &[u8; 4] = b"TDK1";

/// The data keys of a tenant as a transaction sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredDataKeys {
    /// The keys, oldest first.
    pub keys: Vec<DataKey>,
    /// Whether the transaction has changed them itself: what it may yet undo must not be cached.
    pub changed_here: bool,
}

/// The repository of a tenant's data keys.
#[async_trait]
pub trait DataKeys: Send {
    /// The keys, oldest first.
    async fn list(&mut self) -> Result<StoredDataKeys, StoreError>;
    /// Stores a new key.
    async fn insert(&mut self, key: &DataKey) -> Result<(), StoreError>;
    /// Stores a key that was sealed anew by the server's key.
    async fn reseal(&mut self, number: i32, sealed: &[u8]) -> Result<(), StoreError>;
    /// Destroys a key.
    async fn delete(&mut self, number: i32) -> Result<(), StoreError>;
}

/// Seals what is stored for one tenant, under the newest of its data keys.
///
/// Values begin with the number of their key. A value without one is from before there were data keys, or from a time when the
/// tenant had none that could be opened: the server's key opens it, and the upkeep seals it anew.
#[derive(Clone)]
pub struct TenantSeal {
    tenant: TenantId,
    server: Arc<dyn Seal>,
    /// By number; `None` for a key that no key of the server opens.
    keys: BTreeMap<i32, Option<Arc<dyn Seal>>>,
}

impl std::fmt::Debug for TenantSeal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantSeal")
            .field("tenant", &self.tenant)
            .field("keys", &self.keys.keys())
            .finish_non_exhaustive()
    }
}

impl TenantSeal {
    /// The seal of a tenant with these data keys.
    pub fn new(tenant: TenantId, server: Arc<dyn Seal>, keys: &[DataKey]) -> Self {
        let opened = keys.iter().map(|key| {
            let seal = server.with_data_key(&DataKey::place(tenant, key.number), &key.sealed);
            (key.number, seal)
        });
        let keys = opened.collect();
        Self { tenant, server, keys }
    }

    /// The tenant that it seals for.
    pub fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// The number of the key that seals: the newest that can be opened. `None` when the server's key has to.
    pub fn current(&self) -> Option<i32> {
        self.newest().map(|(number, _)| number)
    }

    /// The numbers of the keys that no key of the server opens.
    pub fn unreadable(&self) -> impl Iterator<Item = i32> {
        let keys = self.keys.iter();
        keys.filter(|(_, seal)| seal.is_none()).map(|(number, _)| *number)
    }

    /// Whether a value names a data key that is not among these: it may be newer than they are.
    pub fn lacks_key_of(&self, sealed: &[u8]) -> bool {
        key_of(sealed).is_some_and(|(number, _)| !self.keys.contains_key(&number))
    }

    fn newest(&self) -> Option<(i32, &Arc<dyn Seal>)> {
        let mut newest_first = self.keys.iter().rev();
        newest_first.find_map(|(number, seal)| Some((*number, seal.as_ref()?)))
    }

    /// What a value is sealed for under a data key: its tenant and number are part of it.
    fn bound(&self, number: i32, place: &str) -> String {
        format!("{} {number} {place}", self.tenant)
    }
}

impl Seal for TenantSeal {
    fn seal(&self, place: &str, plain: &[u8]) -> Vec<u8> {
        match self.newest() {
            Some((number, key)) => {
                let sealed = key.seal(&self.bound(number, place), plain);
                [&DataKey::prefix(number)[..], &sealed].concat()
            }
            None => self.server.seal(place, plain),
        }
    }

    fn open(&self, place: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let under_data_key = key_of(sealed).and_then(|(number, sealed)| {
            let key = self.keys.get(&number)?.as_ref()?;
            key.open(&self.bound(number, place), sealed)
        });
        // One in four billion random nonces looks like the beginning of a value under a data key.
        under_data_key.or_else(|| self.server.open(place, sealed))
    }

    fn digest(&self, place: &str, plain: &[u8]) -> [u8; 32] {
        match self.newest() {
            Some((number, key)) => key.digest(&self.bound(number, place), plain),
            None => self.server.digest(place, plain),
        }
    }

    fn is_digest(&self, place: &str, plain: &[u8], digest: &[u8; 32]) -> bool {
        let mut keys = self.keys.iter();
        let under_data_key = keys.any(|(number, key)| {
            key.as_ref()
                .is_some_and(|key| key.is_digest(&self.bound(*number, place), plain, digest))
        });
        under_data_key || self.server.is_digest(place, plain, digest)
    }

    fn is_current(&self, place: &str, sealed: &[u8]) -> bool {
        match (self.newest(), key_of(sealed)) {
            (Some((newest, key)), Some((number, sealed))) => {
                newest == number && key.is_current(&self.bound(number, place), sealed)
            }
            (Some(_), None) => false,
            (None, _) => self.server.is_current(place, sealed),
        }
    }

    fn new_data_key(&self, place: &str) -> Vec<u8> {
        self.server.new_data_key(place)
    }

    fn with_data_key(&self, place: &str, sealed: &[u8]) -> Option<Arc<dyn Seal>> {
        self.server.with_data_key(place, sealed)
    }
}

/// The number of the data key that a value names, and the rest of the value.
fn key_of(sealed: &[u8]) -> Option<(i32, &[u8])> {
    let (number, sealed) = sealed.strip_prefix(MAGIC)?.split_first_chunk()?;
    Some((i32::from_be_bytes(*number), sealed))
}

/// The time of a load of a tenant's data keys: what was loaded before a change is not cached after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealEpoch(pub u64);

/// A bounded cache of the seals of tenants.
pub trait TenantSeals: Send + Sync {
    /// The cached seal of a tenant, if it is fresh.
    fn cached(&self, tenant: TenantId) -> Option<Arc<TenantSeal>>;
    /// What [`TenantSeals::keep`] is to be given after the load that begins now.
    fn epoch(&self, tenant: TenantId) -> SealEpoch;
    /// Caches a seal that was loaded since then, unless the tenant has changed meanwhile.
    fn keep(&self, epoch: SealEpoch, seal: &Arc<TenantSeal>);
}
