use async_trait::async_trait;

use crate::identity::{LONGEST_TOKEN_SECONDS, TOKEN_LEEWAY_SECONDS};
use crate::kernel::{StoreError, SystemScope, Time};

/// For how many seconds others may cache the published keys.
pub const JWKS_MAX_AGE_SECONDS: i64 = 300;

/// The shortest time in seconds between the publication of a key and its first signature: caches of the published keys
/// expire, servers read the new key, and their clocks differ.
pub const SHORTEST_PUBLICATION_SECONDS: i64 = JWKS_MAX_AGE_SECONDS + 60;

/// The time in seconds between both unless a caller chooses another one.
pub const PUBLICATION_SECONDS: i64 = 2 * JWKS_MAX_AGE_SECONDS;

/// The longest time in seconds between both: a week.
pub const LONGEST_PUBLICATION_SECONDS: i64 = 7 * 86_400;

/// How long a former key is accepted after its successor has begun to sign, in seconds: the longest life of a token, the
/// leeway, and a margin for servers whose clock is behind.
const KEPT_SECONDS: i64 = LONGEST_TOKEN_SECONDS + TOKEN_LEEWAY_SECONDS + 60;

/// A signing key of access tokens, as it is stored. All servers over one database read the same keys and derive from the
/// clock which one signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKeyRecord {
    /// Its name in the headers of tokens (RFC 7638).
    pub kid: String,
    /// The private key, sealed for [`Self::place`].
    pub sealed: Vec<u8>,
    /// When it was created and published.
    pub created_at: Time,
    /// When it begins to sign.
    pub signs_from: Time,
}

impl SigningKeyRecord {
    /// Returns the place for which the private key of that name is sealed.
    pub fn place(kid: &str) -> String {
        format!("signing key {kid}")
    }
}

/// What a stored signing key is used for at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningKeyState {
    /// It is published and accepted, and does not sign yet.
    Published,
    /// It signs.
    Signing,
    /// Another key signs. Tokens of this one are accepted until they have expired.
    Former,
    /// All of its tokens have expired: it is not accepted, and is deleted.
    Retired,
}

impl SigningKeyState {
    /// Returns the state of a key that signs from `own` on and whose successor, if there is one, signs from `successor` on.
    pub fn at(own: Time, successor: Option<Time>, now: Time) -> Self {
        match successor.filter(|from| *from <= now) {
            Some(from) if now - from > chrono::Duration::seconds(KEPT_SECONDS) => Self::Retired,
            Some(_) => Self::Former,
            None if own > now => Self::Published,
            None => Self::Signing,
        }
    }

    /// Returns the states of keys in the order in which they sign; `from` is the time of each.
    pub fn of_all(from: &[Time], now: Time) -> Vec<Self> {
        let successors = from.iter().skip(1).copied().map(Some).chain([None]);
        from.iter()
            .zip(successors)
            .map(|(own, successor)| Self::at(*own, successor, now))
            .collect()
    }

    /// The name that operators see.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Signing => "signing",
            Self::Former => "former",
            Self::Retired => "retired",
        }
    }
}

/// A signing key with its private part: a secret.
pub struct OpenSigningKey {
    /// Its name.
    pub kid: String,
    /// The private key as [`KeyRing::generate`] returns it; absent where it could not be opened.
    pub private: Option<Vec<u8>>,
    /// When it begins to sign.
    pub signs_from: Time,
}

/// The keys that this process signs and verifies tokens with: those of the configuration, and the stored ones.
pub trait KeyRing: Send + Sync {
    /// Returns the names of the configured keys; the first of them signs while no stored key does.
    fn configured(&self) -> Vec<String>;

    /// Returns a new key: its name and its private part.
    fn generate(&self) -> (String, Vec<u8>);

    /// Replaces the stored keys, which are in the order in which they sign. Returns the names of those whose private part is
    /// absent, or is not the key of that name: this process neither signs nor verifies with them.
    fn replace(&self, keys: Vec<OpenSigningKey>) -> Vec<String>;

    /// Signs a text with the key that signs tokens now.
    fn sign(&self, message: &[u8]) -> Signature;

    /// Whether a signature of a text is that of a public key.
    fn verifies(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> bool;
}

/// An Ed25519 signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The name of the key, as in the published keys.
    pub kid: String,
    /// The public key, 32 bytes.
    pub public_key: Vec<u8>,
    /// The signature, 64 bytes.
    pub bytes: Vec<u8>,
}

/// The stored signing keys.
#[async_trait]
pub trait SigningKeys: Send + Sync {
    /// Returns all keys in the order in which they sign.
    async fn all(&self, because: SystemScope) -> Result<Vec<SigningKeyRecord>, StoreError>;
}

/// Changes the stored signing keys, in a transaction of an operator's.
#[async_trait]
pub trait SigningKeyEditing: Send {
    /// Returns all keys in the order in which they sign. No other transaction changes any until this one ends.
    async fn keys_for_update(&mut self) -> Result<Vec<SigningKeyRecord>, StoreError>;

    /// Adds a key.
    async fn insert_key(&mut self, key: &SigningKeyRecord) -> Result<(), StoreError>;

    /// Stores the same private key, sealed anew.
    async fn reseal_key(&mut self, kid: &str, sealed: &[u8]) -> Result<(), StoreError>;

    /// Deletes a key whose tokens have all expired.
    async fn delete_key(&mut self, kid: &str) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn a_key_is_published_then_signs_then_is_kept() {
        use SigningKeyState::{Former, Published, Retired, Signing};
        let from = [at(0), at(1_000)];
        for (now, expected) in [
            (-1, [Published, Published]),
            (0, [Signing, Published]),
            (999, [Signing, Published]),
            (1_000, [Former, Signing]),
            (1_000 + 3_690, [Former, Signing]),
            (1_000 + 3_691, [Retired, Signing]),
        ] {
            assert_eq!(SigningKeyState::of_all(&from, at(now)), expected, "{now}");
        }
        assert!(SigningKeyState::of_all(&[], at(0)).is_empty());
    }

    /// A token of the last second before the switch is accepted for all of its life.
    #[test]
    fn a_key_is_kept_for_the_longest_life_of_its_tokens() {
        let last = LONGEST_TOKEN_SECONDS + TOKEN_LEEWAY_SECONDS;
        assert_eq!(
            SigningKeyState::at(at(-9_000), Some(at(0)), at(last)),
            SigningKeyState::Former
        );
    }
}
