use std::net::{IpAddr, Ipv6Addr};

use async_trait::async_trait;
use chrono::Duration;
use serde::{Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use crate::kernel::{
    ApiKeyId, Check, Invalid, Page, PageRequest, Patch, PermissionRegistry, PermissionSet, StoreError,
    TenantId, Time, UserId,
};

/// The most networks that a key may be limited to.
const MOST_NETWORKS: usize = 50;

/// A key for programs. Serialized (for the audit log) without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiKey {
    /// Its id, which is also a part of its text.
    pub id: ApiKeyId,
    /// 1 to 120 characters.
    pub name: String,
    /// The user who created it. A key that is no service account's can do at most what this user can.
    pub creator: UserId,
    /// Whether it belongs to the tenant: it does not end with its creator, and its scopes are its only ceiling.
    pub service_account: bool,
    /// What it may do at the most.
    pub scopes: PermissionSet,
    /// From which networks it may be used; from all when empty.
    pub allowed_networks: Vec<AllowedNetwork>,
    /// SHA-256 of the secret.
    #[serde(skip)]
    pub secret_hash: [u8; 32],
    /// SHA-256 of the secret before the last rotation, and until when it is accepted.
    #[serde(skip)]
    pub former: Option<FormerSecret>,
    /// When it ends.
    pub expires_at: Time,
    /// How far the admins have been notified of its end.
    #[serde(skip)]
    pub notified: ExpiryStage,
    /// When it was last used, to the nearest minutes.
    #[serde(skip)]
    pub last_used_at: Option<Time>,
    /// When it was revoked, if it was.
    pub revoked_at: Option<Time>,
    /// When it was created.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
    /// Counts the changes, from 1.
    pub version: i64,
}

/// How far a key is on its way to its end, as admins are notified of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExpiryStage {
    /// It is valid for longer than [`ApiKey::NOTICE_DAYS`].
    Far,
    /// It ends within [`ApiKey::NOTICE_DAYS`].
    Ahead,
    /// It has ended.
    Over,
}

impl ExpiryStage {
    /// Every stage, in order.
    pub const ALL: [Self; 3] = [Self::Far, Self::Ahead, Self::Over];

    /// The stage's name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Far => "far",
            Self::Ahead => "ahead",
            Self::Over => "over",
        }
    }

    /// The stage of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == text)
    }
}

/// The secret that a rotation replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FormerSecret {
    /// Its SHA-256.
    pub hash: [u8; 32],
    /// Until when it is accepted.
    pub until: Time,
}

/// A key to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewApiKey {
    /// See [`ApiKey::name`].
    pub name: String,
    /// The names of the permissions; see [`ApiKey::scopes`].
    pub scopes: Vec<String>,
    /// See [`ApiKey::expires_at`]; in [`ApiKey::DEFAULT_DAYS`] when absent, which a service account's must not be.
    pub expires_at: Option<Time>,
    /// See [`ApiKey::allowed_networks`].
    pub allowed_networks: Option<Vec<String>>,
    /// See [`ApiKey::service_account`].
    pub service_account: bool,
}

/// What may be changed of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiKeyPatch {
    /// See [`ApiKey::name`].
    pub name: Patch<String>,
    /// See [`NewApiKey::scopes`].
    pub scopes: Patch<Vec<String>>,
    /// See [`ApiKey::expires_at`].
    pub expires_at: Patch<Time>,
    /// See [`ApiKey::allowed_networks`].
    pub allowed_networks: Patch<Vec<String>>,
}

impl ApiKey {
    /// How long a key lives when its creator does not say, in days.
    pub const DEFAULT_DAYS: i64 = 90;

    /// How far in the future a key may end, in days.
    pub const MOST_DAYS: i64 = 366;

    /// The most keys of a tenant that are not revoked.
    pub const MOST: u64 = 200;

    /// The most revoked keys that a tenant keeps; they tell a revoked key from an unknown one in the audit log.
    pub const MOST_REVOKED: u64 = 200;

    /// So many days before its end admins are notified.
    pub const NOTICE_DAYS: i64 = 7;

    /// The longest overlap of a rotation, in seconds: a week.
    pub const LONGEST_OVERLAP: i64 = 604_800;

    /// A new key, with scopes among the permissions of a registry.
    ///
    /// # Errors
    /// [`Invalid`].
    pub fn new(
        id: ApiKeyId,
        creator: UserId,
        secret_hash: [u8; 32],
        (new, permissions): (NewApiKey, &PermissionRegistry),
        now: Time,
    ) -> Result<Self, Invalid> {
        let mut check = Check::new();
        let expires_at = new.expires_at.unwrap_or(now + Duration::days(Self::DEFAULT_DAYS));
        if new.service_account && new.expires_at.is_none() {
            check.fail("/expires_at", "required", "is required for a service account");
        }
        let networks = new.allowed_networks.as_deref();
        let key = Self {
            id,
            name: new.name.trim().to_owned(),
            creator,
            service_account: new.service_account,
            scopes: check
                .take(scopes(&new.scopes, &PermissionSet::default(), permissions))
                .unwrap_or_default(),
            allowed_networks: check
                .take(networks.map_or(Ok(Vec::new()), read_networks))
                .unwrap_or_default(),
            secret_hash,
            former: None,
            expires_at,
            // Nobody is notified of what they have just chosen.
            notified: stage(expires_at, now),
            last_used_at: None,
            revoked_at: None,
            created_at: now,
            updated_at: now,
            version: 1,
        };
        check.line("/name", &key.name, 1..=120);
        key.check_expiry(&mut check, now);
        check.verdict()?;
        Ok(key)
    }

    /// Applies a change. Scopes are among the permissions of a registry; those that the key has already may stay.
    ///
    /// # Errors
    /// [`Invalid`]; then nothing has changed.
    pub fn apply(
        &mut self,
        patch: ApiKeyPatch,
        permissions: &PermissionRegistry,
        now: Time,
    ) -> Result<(), Invalid> {
        let mut check = Check::new();
        let mut key = self.clone();
        for (cleared, pointer) in [
            (patch.name == Patch::Clear, "/name"),
            (patch.scopes == Patch::Clear, "/scopes"),
            (patch.expires_at == Patch::Clear, "/expires_at"),
        ] {
            check.require(!cleared, pointer, "required", "must not be null");
        }
        if let Patch::Set(name) = patch.name {
            name.trim().clone_into(&mut key.name);
            check.line("/name", &key.name, 1..=120);
        }
        if let Patch::Set(names) = patch.scopes {
            key.scopes = check
                .take(scopes(&names, &self.scopes, permissions))
                .unwrap_or_default();
        }
        if let Patch::Set(at) = patch.expires_at {
            key.expires_at = at;
            key.notified = stage(at, now);
            key.check_expiry(&mut check, now);
        }
        match patch.allowed_networks {
            Patch::Keep => {}
            Patch::Clear => key.allowed_networks = Vec::new(),
            Patch::Set(texts) => {
                key.allowed_networks = check.take(read_networks(&texts)).unwrap_or_default();
            }
        }
        check.verdict()?;
        key.changed(now);
        *self = key;
        Ok(())
    }

    /// Replaces the secret. The present one is accepted for so many seconds more; one that was replaced earlier no longer.
    ///
    /// # Errors
    /// [`Invalid`] when the overlap is not in 0..=[`ApiKey::LONGEST_OVERLAP`].
    pub fn rotate(&mut self, secret_hash: [u8; 32], overlap_seconds: i64, now: Time) -> Result<(), Invalid> {
        if !(0..=Self::LONGEST_OVERLAP).contains(&overlap_seconds) {
            let detail = "must be 0 to 604800 seconds";
            return Err(Invalid::one("/overlap_seconds", "out_of_range", detail));
        }
        self.former = (overlap_seconds > 0).then(|| FormerSecret {
            hash: self.secret_hash,
            until: now + Duration::seconds(overlap_seconds),
        });
        self.secret_hash = secret_hash;
        self.changed(now);
        Ok(())
    }

    /// Whether this is its present secret, not one that a rotation replaced.
    pub fn is_present_secret(&self, presented: &[u8; 32]) -> bool {
        is_same(&self.secret_hash, presented)
    }

    /// Ends the key. A former secret is kept until its time is over, so that it is refused as one of a revoked key.
    pub fn revoke(&mut self, now: Time) {
        self.revoked_at = Some(now);
        self.changed(now);
    }

    /// Whether the key is past its time.
    pub fn is_expired(&self, now: Time) -> bool {
        now >= self.expires_at
    }

    /// The stage that admins are still to be notified of.
    pub fn due_notice(&self, now: Time) -> Option<ExpiryStage> {
        Some(stage(self.expires_at, now)).filter(|stage| *stage > self.notified)
    }

    /// Whether it may be presented: by this secret, now and from this address. What the creator is, is not asked here.
    ///
    /// # Errors
    /// [`KeyRefusal`].
    pub fn admit(&self, presented: &[u8; 32], address: Option<IpAddr>, now: Time) -> Result<(), KeyRefusal> {
        let former = self.former.filter(|former| now < former.until);
        let is_former = former.is_some_and(|former| is_same(&former.hash, presented));
        if !self.is_present_secret(presented) && !is_former {
            return Err(KeyRefusal::Secret);
        }
        if self.revoked_at.is_some() {
            return Err(KeyRefusal::Revoked);
        }
        if self.is_expired(now) {
            return Err(KeyRefusal::Expired);
        }
        let within = |address: IpAddr| {
            self.allowed_networks
                .iter()
                .any(|network| network.contains(address))
        };
        if self.allowed_networks.is_empty() || address.is_some_and(within) {
            Ok(())
        } else {
            Err(KeyRefusal::Network)
        }
    }

    fn check_expiry(&self, check: &mut Check, now: Time) {
        let latest = now + Duration::days(Self::MOST_DAYS);
        let detail = "must be in the future, and at most 366 days from now";
        check.require(
            now < self.expires_at && self.expires_at <= latest,
            "/expires_at",
            "out_of_range",
            detail,
        );
    }

    fn changed(&mut self, now: Time) {
        self.updated_at = now;
        self.version += 1;
    }
}

fn stage(expires_at: Time, now: Time) -> ExpiryStage {
    if now >= expires_at {
        ExpiryStage::Over
    } else if now >= expires_at - Duration::days(ApiKey::NOTICE_DAYS) {
        ExpiryStage::Ahead
    } else {
        ExpiryStage::Far
    }
}

/// Why a key was refused. The answer does not say it; the audit log does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// No such key in the tenant that it names, or no such tenant.
    #[error("unknown")]
    Unknown,
    /// There is a key of that id, with another secret.
    #[error("wrong_secret")]
    Secret,
    /// It was revoked.
    #[error("revoked")]
    Revoked,
    /// It is past its time.
    #[error("expired")]
    Expired,
    /// The caller's address is in none of its networks.
    #[error("network")]
    Network,
    /// The user it acts for is deactivated or removed.
    #[error("creator_inactive")]
    Creator,
}

/// Compares without stopping at the first difference, so that the time says nothing of where it is.
fn is_same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let difference = one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(difference) == 0
}

/// Reads the names of scopes: permissions that keys may have, or that this one has already.
fn scopes(
    names: &[String],
    held: &PermissionSet,
    permissions: &PermissionRegistry,
) -> Result<PermissionSet, Invalid> {
    permissions.scopes(("/scopes", "unknown_scope"), names, held)
}

fn read_networks(texts: &[String]) -> Result<Vec<AllowedNetwork>, Invalid> {
    let mut check = Check::new();
    let count = (1..=MOST_NETWORKS).contains(&texts.len());
    let detail = "must have 1 to 50 networks; leave it out, or null, to allow every address";
    check.require(count, "/allowed_networks", "out_of_range", detail);
    let mut networks = Vec::new();
    for (index, text) in texts.iter().take(MOST_NETWORKS).enumerate() {
        match AllowedNetwork::parse(text) {
            Some(network) => networks.push(network),
            None => check.fail(
                &format!("/allowed_networks/{index}"),
                "invalid_network",
                "must be a network such as 10.0.0.0/8 or 2001:db8::/32 without bits behind its prefix, or an address",
            ),
        }
    }
    check.verdict()?;
    Ok(networks)
}

/// A network in CIDR notation (RFC 4632, RFC 4291).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllowedNetwork {
    address: IpAddr,
    bits: u8,
}

impl AllowedNetwork {
    /// Reads `10.0.0.0/8`, or one address. No bit may be set behind the prefix: who writes one may mean another network. An
    /// IPv4-mapped IPv6 network (`::ffff:10.0.0.0/104`) is the IPv4 network.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => bits.parse().ok()?,
            Some(_) => return None,
            None => most,
        };
        if bits > most || masked(address, bits) != address {
            return None;
        }
        let (address, bits) = match (address.to_canonical(), bits.checked_sub(MAPPED_BITS)) {
            (IpAddr::V4(mapped), Some(bits)) if address.is_ipv6() => (IpAddr::V4(mapped), bits),
            _ => (address, bits),
        };
        Some(Self { address, bits })
    }

    /// Whether an address is in it. An IPv4 address that is written as an IPv6 address is an IPv4 address.
    pub fn contains(self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.bits) == self.address
    }

    /// Whether all its addresses are in another network.
    pub fn is_within(self, other: Self) -> bool {
        self.bits >= other.bits && other.contains(self.address)
    }
}

/// The bits of `::ffff:0:0/96`, the network of IPv4-mapped addresses (RFC 4291 section 2.5.5.2).
const MAPPED_BITS: u8 = 96;

/// The address with everything behind the prefix set to 0.
fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

impl std::fmt::Display for AllowedNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Serialize for AllowedNetwork {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A key as a caller presents it: where its row is, and the hash that proves it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PresentedApiKey {
    /// The tenant that it names.
    pub tenant: TenantId,
    /// The key that it names.
    pub id: ApiKeyId,
    /// SHA-256 of its secret.
    pub secret_hash: [u8; 32],
}

impl std::fmt::Debug for PresentedApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PresentedApiKey")
            .field("tenant", &self.tenant)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The text of a key that was just made; it is shown once and not stored.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedApiKey {
    /// The key as its holder presents it, shown once.
    pub text: String,
    /// SHA-256 of its secret.
    pub secret_hash: [u8; 32],
}

impl std::fmt::Debug for IssuedApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedApiKey").finish_non_exhaustive()
    }
}

/// How keys are written: `tk_<environment>_<id>_<secret><checksum>`.
///
/// `id` is the base62 of 32 bytes, tenant and key, so that the row is read in its tenant's scope; `secret` that of 32 random
/// bytes; `checksum` six characters, the base62 of the CRC-32 (ISO-HDLC, as in zlib) of everything before it. So a text that
/// is no key is recognized without the database, also by a scanner for leaked secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyFormat {
    environment: String,
}

impl Default for ApiKeyFormat {
    fn default() -> Self {
        Self {
            environment: "live".to_owned(),
        }
    }
}

/// What every key begins with.
const PREFIX: &str = "tk_";
/// Characters of 32 bytes in base62.
const WIDE: usize = 43;
/// Characters of a checksum.
const SUM: usize = 6;
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

impl ApiKeyFormat {
    /// Keys of an environment: 1 to 16 characters of `a-z 0-9`.
    pub fn new(environment: &str) -> Option<Self> {
        let plain = environment
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let fits = plain && (1..=16).contains(&environment.len());
        fits.then(|| Self {
            environment: environment.to_owned(),
        })
    }

    /// Whether a text claims to be a key of any environment.
    pub fn is_claimed(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// What a key's text begins with; it names the key and is no secret.
    pub fn start(&self, tenant: TenantId, id: ApiKeyId) -> String {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(tenant.uuid().as_bytes());
        bytes[16..].copy_from_slice(id.uuid().as_bytes());
        format!("{PREFIX}{}_{}", self.environment, encode(bytes))
    }

    /// The text of a key with this secret.
    pub fn issue(&self, tenant: TenantId, id: ApiKeyId, secret: [u8; 32]) -> IssuedApiKey {
        let secret = encode(secret);
        let text = format!("{}_{secret}", self.start(tenant, id));
        IssuedApiKey {
            text: format!("{text}{}", checksum(&text)),
            secret_hash: Sha256::digest(secret.as_bytes()).into(),
        }
    }

    /// Reads a key of this environment; `None` for everything that was not made as one.
    pub fn read(&self, text: &str) -> Option<PresentedApiKey> {
        let rest = text
            .strip_prefix(PREFIX)?
            .strip_prefix(self.environment.as_str())?;
        let (id, secret) = rest.strip_prefix('_')?.split_once('_')?;
        if !text.is_ascii() || id.len() != WIDE || secret.len() != WIDE + SUM {
            return None;
        }
        let (summed, sum) = text.split_at(text.len() - SUM);
        if checksum(summed) != sum {
            return None;
        }
        let secret = &secret[..WIDE];
        decode(secret)?;
        let (tenant, id) = decode(id).map(|bytes| halves(&bytes))?;
        Some(PresentedApiKey {
            tenant: tenant.into(),
            id: id.into(),
            secret_hash: Sha256::digest(secret.as_bytes()).into(),
        })
    }
}

fn halves(bytes: &[u8; 32]) -> (uuid::Uuid, uuid::Uuid) {
    let half = |from: usize| {
        let mut half = [0; 16];
        half.copy_from_slice(&bytes[from..from + 16]);
        uuid::Uuid::from_bytes(half)
    };
    (half(0), half(16))
}

/// Base62, most significant digit first, filled up with zeros.
fn encode(mut bytes: [u8; 32]) -> String {
    let mut digits = [b'0'; WIDE];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0_u32;
        for byte in &mut bytes {
            let value = rest << 8 | u32::from(*byte);
            *byte = (value / 62).to_le_bytes()[0];
            rest = value % 62;
        }
        *digit = DIGITS[rest as usize];
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

/// The bytes of 43 base62 digits; `None` for other characters, and for more than 256 bits.
fn decode(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0_u8; 32];
    for character in text.bytes() {
        let digit = DIGITS.iter().position(|digit| *digit == character)?;
        let mut carry = u32::try_from(digit).ok()?;
        for byte in bytes.iter_mut().rev() {
            let value = u32::from(*byte) * 62 + carry;
            *byte = value.to_le_bytes()[0];
            carry = value >> 8;
        }
        if carry > 0 {
            return None;
        }
    }
    Some(bytes)
}

/// CRC-32 in base62, filled up with zeros to six characters, as GitHub's tokens have it.
fn checksum(text: &str) -> String {
    let mut rest = crc32(text.as_bytes());
    let mut digits = [b'0'; SUM];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(rest % 62) as usize];
        rest /= 62;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

/// CRC-32/ISO-HDLC, bit by bit: a key is short.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| {
        let carry = if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
        crc >> 1 ^ carry
    };
    let add = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), step);
    !bytes.iter().fold(u32::MAX, add)
}

/// Where secrets come from: bytes that nobody can guess.
pub trait SecretSource: Send + Sync {
    /// 256 random bits.
    fn secret(&self) -> [u8; 32];
}

/// The API keys of the scope's tenant.
#[async_trait]
pub trait ApiKeys: Send {
    /// A key that is not revoked.
    async fn find(&mut self, id: ApiKeyId) -> Result<Option<ApiKey>, StoreError>;
    /// The same, locked until the transaction ends.
    async fn find_for_update(&mut self, id: ApiKeyId) -> Result<Option<ApiKey>, StoreError>;
    /// A page of the keys that are not revoked, newest first.
    async fn list(&mut self, page: PageRequest) -> Result<Page<ApiKey>, StoreError>;
    /// The keys that a user created and that are not revoked, locked until the transaction ends.
    async fn list_of(&mut self, creator: UserId) -> Result<Vec<ApiKey>, StoreError>;
    /// How many keys that a user created are neither revoked nor expired.
    async fn count_of(&mut self, creator: UserId, now: Time) -> Result<u64, StoreError>;
    /// How many keys are not revoked.
    async fn count(&mut self) -> Result<u64, StoreError>;
    /// Adds a key.
    async fn insert(&mut self, key: &ApiKey) -> Result<(), StoreError>;
    /// Stores a changed key.
    async fn update(&mut self, key: &ApiKey) -> Result<(), StoreError>;
    /// The keys that are not revoked and end by then, without those whose admins know that they have ended; each is locked.
    async fn ending(&mut self, by: Time) -> Result<Vec<ApiKey>, StoreError>;
    /// Stores how far the admins have been notified of a key's end.
    async fn record_notice(&mut self, id: ApiKeyId, notified: ExpiryStage) -> Result<(), StoreError>;
    /// Stores when a key was last used, unless a later time is stored.
    async fn record_use(&mut self, id: ApiKeyId, at: Time) -> Result<(), StoreError>;
    /// Deletes revoked keys but for the latest so many, so that their number is bounded.
    async fn keep_latest_revoked(&mut self, most: u64) -> Result<(), StoreError>;
    /// Deletes the keys that were revoked before then; how many there were.
    async fn delete_revoked(&mut self, before: Time) -> Result<u64, StoreError>;
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn format() -> ApiKeyFormat {
        ApiKeyFormat::new("live").unwrap()
    }

    fn issued() -> IssuedApiKey {
        format().issue(Uuid::from_u128(1).into(), Uuid::from_u128(2).into(), [7; 32])
    }

    fn new(scopes: &[&str]) -> NewApiKey {
        NewApiKey {
            name: "CI".into(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            expires_at: None,
            allowed_networks: None,
            service_account: false,
        }
    }

    fn key(new: NewApiKey) -> Result<ApiKey, Invalid> {
        ApiKey::new(
            Uuid::from_u128(2).into(),
            Uuid::from_u128(3).into(),
            [1; 32],
            (new, &PermissionRegistry::default()),
            Time::UNIX_EPOCH,
        )
    }

    fn pointers(result: Result<ApiKey, Invalid>) -> Vec<String> {
        let Invalid(errors) = result.unwrap_err();
        errors.into_iter().map(|error| error.pointer).collect()
    }

    #[test]
    fn crc32_agrees_with_the_published_check_value() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(checksum("123456789"), "3jZRME");
    }

    #[test]
    fn a_key_reads_back_and_has_the_published_form() {
        let issued = issued();
        let text = &issued.text;
        assert_eq!(text.len(), 3 + 4 + 1 + 43 + 1 + 49);
        assert!(text.starts_with("tk_live_"));
        let read = format().read(text).unwrap();
        assert_eq!(
            (read.tenant, read.id),
            (Uuid::from_u128(1).into(), Uuid::from_u128(2).into())
        );
        assert_eq!(read.secret_hash, issued.secret_hash);
        assert!(!format!("{read:?} {issued:?}").contains(&text[52..]));
    }

    #[test]
    fn a_key_changed_in_one_character_is_no_key() {
        let text = issued().text;
        for place in 0..text.len() {
            for other in *b"0Az_-" {
                let mut changed = text.clone().into_bytes();
                if changed[place] != other {
                    changed[place] = other;
                    let changed = String::from_utf8(changed).unwrap();
                    assert!(format().read(&changed).is_none(), "{changed}");
                }
            }
        }
    }

    #[test]
    fn keys_of_other_environments_and_lengths_are_no_keys() {
        let text = issued().text;
        assert!(ApiKeyFormat::new("test").unwrap().read(&text).is_none());
        let long = format!("{text}0");
        for wrong in [
            "",
            "tk_",
            "tk_live_",
            "tk_live__",
            &text[..99],
            &text[1..],
            &long,
            "tk_live_ü_ü",
        ] {
            assert!(format().read(wrong).is_none(), "{wrong}");
        }
        for environment in ["", "Live", "a_b", "abcdefghijklmnopq"] {
            assert!(ApiKeyFormat::new(environment).is_none(), "{environment}");
        }
    }

    #[test]
    fn digits_beyond_256_bits_are_no_key() {
        let base = format!("tk_live_{}_{}", "z".repeat(43), "0".repeat(43));
        assert!(format().read(&format!("{base}{}", checksum(&base))).is_none());
    }

    proptest! {
        #[test]
        fn base62_reads_back(bytes: [u8; 32]) {
            let text = encode(bytes);
            prop_assert_eq!(text.len(), 43);
            prop_assert_eq!(decode(&text), Some(bytes));
        }

        #[test]
        fn no_text_makes_the_reader_fail(text in "\\PC{0,120}") {
            prop_assert!(format().read(&text).is_none());
        }
    }

    #[test]
    fn a_network_contains_its_addresses_only() {
        let contains = |network: &str, address: &str| {
            AllowedNetwork::parse(network)
                .unwrap()
                .contains(address.parse().unwrap())
        };
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("203.0.113.9", "203.0.113.9", true),
            ("203.0.113.9", "203.0.113.8", false),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::1", "2001:db8::1", true),
            ("::ffff:10.0.0.0/104", "10.255.0.1", true),
            ("::ffff:10.0.0.0/104", "::ffff:10.255.0.1", true),
            ("::ffff:10.0.0.0/104", "11.0.0.0", false),
            ("::ffff:203.0.113.9", "203.0.113.9", true),
            ("::ffff:0:0/96", "203.0.113.9", true),
            ("::ffff:0:0/96", "2001:db8::1", false),
        ] {
            assert_eq!(contains(network, address), expected, "{network} {address}");
        }
        for wrong in [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0/8",
            "::/129",
            "x",
            "10.0.0.0/",
            "::ffff:10.0.0.1/104",
            "::ffff:10.0.0.0/8",
        ] {
            assert_eq!(AllowedNetwork::parse(wrong), None, "{wrong}");
        }
        let mapped = AllowedNetwork::parse("::ffff:10.0.0.0/104").unwrap();
        assert_eq!(mapped.to_string(), "10.0.0.0/8");
    }

    #[test]
    fn a_key_without_expiry_ends_after_90_days() {
        let key = key(new(&["tasks.read"])).unwrap();
        assert_eq!(key.expires_at - key.created_at, Duration::days(90));
    }

    #[test]
    fn invalid_fields_of_a_key_are_all_named() {
        let now = Time::UNIX_EPOCH;
        let wrong = NewApiKey {
            name: " ".into(),
            scopes: vec![
                "tasks.read".into(),
                "users.manage".into(),
                "mail.send".into(),
                "x".into(),
            ],
            expires_at: Some(now),
            allowed_networks: Some(vec!["10.0.0.0/8".into(), "10.0.0.1/8".into()]),
            service_account: false,
        };
        let expected = [
            "/scopes/1",
            "/scopes/2",
            "/scopes/3",
            "/allowed_networks/1",
            "/name",
            "/expires_at",
        ];
        assert_eq!(pointers(key(wrong)), expected);
        assert_eq!(pointers(key(new(&[]))), ["/scopes"]);
        let service = NewApiKey {
            service_account: true,
            ..new(&["tasks.read"])
        };
        assert_eq!(pointers(key(service.clone())), ["/expires_at"]);
        let ending = |days| NewApiKey {
            expires_at: Some(now + Duration::days(days)),
            ..service.clone()
        };
        assert!(key(ending(366)).is_ok());
        assert_eq!(pointers(key(ending(367))), ["/expires_at"]);
        let networks = |texts: Vec<String>| NewApiKey {
            allowed_networks: Some(texts),
            ..new(&["tasks.read"])
        };
        assert_eq!(pointers(key(networks(Vec::new()))), ["/allowed_networks"]);
        assert_eq!(
            pointers(key(networks(vec!["10.0.0.0/8".into(); 51]))),
            ["/allowed_networks"]
        );
    }

    /// A scope of a service that is no longer part of the program: a client that sends back what it read loses nothing.
    #[test]
    fn an_update_may_keep_unknown_scopes_but_not_add_them() {
        let registry = PermissionRegistry::default();
        let mut key = key(new(&["tasks.write", "tasks.read"])).unwrap();
        assert_eq!(
            key.scopes.names(),
            ["tasks.read", "tasks.write"],
            "in the registry's order"
        );
        let names = |names: &[&str]| ApiKeyPatch {
            scopes: Patch::Set(names.iter().map(|name| (*name).to_owned()).collect()),
            ..ApiKeyPatch::default()
        };
        let added = key.apply(names(&["notes.read", "tasks.read"]), &registry, Time::UNIX_EPOCH);
        assert_eq!(added.unwrap_err().0[0].pointer, "/scopes/0");
        key.scopes = ["notes.read", "tasks.read"].into_iter().collect();
        let kept = names(&["notes.read", "tasks.read", "projects.read", "notes.read"]);
        key.apply(kept, &registry, Time::UNIX_EPOCH).unwrap();
        assert_eq!(key.scopes.names(), ["projects.read", "tasks.read", "notes.read"]);
    }

    #[test]
    fn admins_are_notified_once_of_each_stage() {
        let now = Time::UNIX_EPOCH;
        let at = |days| now + Duration::days(days);
        let mut key = key(new(&["tasks.read"])).unwrap();
        assert_eq!(key.due_notice(at(83) - Duration::seconds(1)), None);
        assert_eq!(key.due_notice(at(83)), Some(ExpiryStage::Ahead));
        key.notified = ExpiryStage::Ahead;
        assert_eq!(key.due_notice(at(89)), None);
        assert_eq!(key.due_notice(at(90)), Some(ExpiryStage::Over));
        key.notified = ExpiryStage::Over;
        assert_eq!(key.due_notice(at(200)), None);
        let patch = |days| ApiKeyPatch {
            expires_at: Patch::Set(at(days)),
            ..ApiKeyPatch::default()
        };
        key.apply(patch(300), &PermissionRegistry::default(), at(100))
            .unwrap();
        assert_eq!(key.notified, ExpiryStage::Far);
        key.apply(patch(105), &PermissionRegistry::default(), at(100))
            .unwrap();
        assert_eq!(
            (key.notified, key.due_notice(at(101))),
            (ExpiryStage::Ahead, None)
        );
        assert_eq!(key.due_notice(at(105)), Some(ExpiryStage::Over));
    }

    #[test]
    fn both_secrets_are_accepted_during_the_overlap() {
        let now = Time::UNIX_EPOCH;
        let mut key = key(new(&["tasks.read"])).unwrap();
        key.rotate([2; 32], 60, now).unwrap();
        let at = |seconds| now + Duration::seconds(seconds);
        assert_eq!(key.admit(&[1; 32], None, at(59)), Ok(()));
        assert_eq!(key.admit(&[2; 32], None, at(59)), Ok(()));
        assert_eq!(key.admit(&[1; 32], None, at(60)), Err(KeyRefusal::Secret));
        key.rotate([3; 32], 60, at(10)).unwrap();
        assert_eq!(key.admit(&[1; 32], None, at(11)), Err(KeyRefusal::Secret));
        key.rotate([4; 32], 0, at(12)).unwrap();
        assert_eq!(key.admit(&[3; 32], None, at(12)), Err(KeyRefusal::Secret));
        assert!(key.rotate([5; 32], -1, now).is_err() && key.rotate([5; 32], 604_801, now).is_err());
        assert_eq!(key.version, 4);
        key.rotate([6; 32], 60, at(20)).unwrap();
        key.revoke(at(21));
        for secret in [[4; 32], [6; 32]] {
            assert_eq!(key.admit(&secret, None, at(22)), Err(KeyRefusal::Revoked));
        }
    }

    #[test]
    fn a_key_is_refused_after_its_end_and_outside_its_networks() {
        let now = Time::UNIX_EPOCH;
        let mut key = key(NewApiKey {
            allowed_networks: Some(vec!["10.0.0.0/8".into()]),
            ..new(&["tasks.read"])
        })
        .unwrap();
        let inside = "10.1.1.1".parse().ok();
        assert_eq!(key.admit(&[1; 32], inside, now), Ok(()));
        assert_eq!(
            key.admit(&[1; 32], "11.1.1.1".parse().ok(), now),
            Err(KeyRefusal::Network)
        );
        assert_eq!(key.admit(&[1; 32], None, now), Err(KeyRefusal::Network));
        assert_eq!(key.admit(&[9; 32], inside, now), Err(KeyRefusal::Secret));
        assert_eq!(
            key.admit(&[1; 32], inside, key.expires_at),
            Err(KeyRefusal::Expired)
        );
        key.revoke(now);
        assert_eq!(key.admit(&[1; 32], inside, now), Err(KeyRefusal::Revoked));
    }
}
