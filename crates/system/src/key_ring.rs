use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use tenantry_domain::identity::{KeyRing, OpenSigningKey, Signature, SigningKeyState};
use tenantry_domain::kernel::{Clock, Time};

use crate::{AccessTokensError, SigningKey};

/// The keys that sign and verify tokens: those of the configuration, and those that all servers over one database share.
///
/// Which shared key signs follows from the clock, so that servers that have read the same keys agree without a message. A
/// configured key is accepted as long as it is configured, and the first one signs while no shared key does.
pub struct SigningKeyRing {
    configured: Vec<SigningKey>,
    shared: RwLock<Arc<[SharedKey]>>,
    clock: Arc<dyn Clock>,
}

/// A shared key, in the order in which they sign.
struct SharedKey {
    signs_from: Time,
    /// Absent where the private part could not be read: then other servers sign with it, and this one with a configured key.
    key: Option<SigningKey>,
}

impl SigningKeyRing {
    /// A ring of the configured keys.
    ///
    /// # Errors
    /// [`AccessTokensError::NoKey`], [`AccessTokensError::SameKey`].
    pub fn new(configured: Vec<SigningKey>, clock: Arc<dyn Clock>) -> Result<Self, AccessTokensError> {
        let mut seen = HashSet::new();
        if let Some(twice) = configured.iter().find(|key| !seen.insert(key.kid())) {
            return Err(AccessTokensError::SameKey(twice.kid().into()));
        }
        if configured.is_empty() {
            return Err(AccessTokensError::NoKey);
        }
        Ok(Self {
            configured,
            shared: RwLock::new(Arc::default()),
            clock,
        })
    }

    /// Returns the key that signs now.
    pub(crate) fn signing(&self) -> SigningKey {
        let (shared, states) = self.shared_now();
        let signing = shared
            .iter()
            .zip(states)
            .find(|(_, state)| *state == SigningKeyState::Signing);
        let signing = signing.and_then(|(shared, _)| shared.key.as_ref());
        signing.unwrap_or(&self.configured[0]).clone()
    }

    /// Returns the key of that name, when its tokens are accepted now.
    pub(crate) fn accepted(&self, kid: &str) -> Option<SigningKey> {
        self.all().into_iter().find(|key| key.kid() == kid)
    }

    /// Returns the public keys whose tokens are accepted now, the signing one first, as a JWK Set.
    pub(crate) fn jwks(&self) -> serde_json::Value {
        let signing = self.signing();
        let mut keys = self.all();
        keys.sort_by_key(|key| key.kid() != signing.kid());
        serde_json::json!({ "keys": keys.iter().map(SigningKey::jwk).collect::<Vec<_>>() })
    }

    fn all(&self) -> Vec<SigningKey> {
        let (shared, states) = self.shared_now();
        let accepted = shared.iter().zip(states);
        let accepted = accepted.filter(|(_, state)| *state != SigningKeyState::Retired);
        let accepted = accepted.filter_map(|(shared, _)| shared.key.clone());
        self.configured.iter().cloned().chain(accepted).collect()
    }

    fn shared_now(&self) -> (Arc<[SharedKey]>, Vec<SigningKeyState>) {
        let shared = Arc::clone(&self.shared.read().unwrap_or_else(PoisonError::into_inner));
        let from: Vec<Time> = shared.iter().map(|key| key.signs_from).collect();
        let states = SigningKeyState::of_all(&from, self.clock.now());
        (shared, states)
    }
}

impl KeyRing for SigningKeyRing {
    fn configured(&self) -> Vec<String> {
        self.configured.iter().map(|key| key.kid().to_owned()).collect()
    }

    fn generate(&self) -> (String, Vec<u8>) {
        let key = SigningKey::generate();
        (key.kid().to_owned(), key.to_pem().into_bytes())
    }

    fn replace(&self, keys: Vec<OpenSigningKey>) -> Vec<String> {
        let mut wrong = Vec::new();
        let read = |open: OpenSigningKey| {
            let pem = open.private.map(String::from_utf8).and_then(Result::ok);
            let key = pem.and_then(|pem| SigningKey::from_pem(&pem).ok());
            let key = key.filter(|key| key.kid() == open.kid);
            if key.is_none() {
                wrong.push(open.kid);
            }
            // One that is configured too is there already, and stays for longer.
            let key = key.filter(|key| self.configured.iter().all(|other| other.kid() != key.kid()));
            SharedKey {
                signs_from: open.signs_from,
                key,
            }
        };
        let shared: Arc<[SharedKey]> = keys.into_iter().map(read).collect();
        *self.shared.write().unwrap_or_else(PoisonError::into_inner) = shared;
        wrong
    }

    fn sign(&self, message: &[u8]) -> Signature {
        self.signing().sign(message)
    }

    fn verifies(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        SigningKey::verifies(public_key, message, signature)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use chrono::TimeDelta;

    use super::*;

    struct ManualClock(Mutex<Time>);

    impl Clock for ManualClock {
        fn now(&self) -> Time {
            *self.0.lock().unwrap()
        }
    }

    fn start() -> Time {
        Time::from_timestamp(1_800_000_000, 0).unwrap()
    }

    fn ring(configured: &SigningKey) -> (Arc<ManualClock>, SigningKeyRing) {
        let clock = Arc::new(ManualClock(Mutex::new(start())));
        let ring = SigningKeyRing::new(vec![configured.clone()], clock.clone()).unwrap();
        (clock, ring)
    }

    fn open(key: &SigningKey, seconds: i64) -> OpenSigningKey {
        OpenSigningKey {
            kid: key.kid().to_owned(),
            private: Some(key.to_pem().into_bytes()),
            signs_from: start() + TimeDelta::seconds(seconds),
        }
    }

    fn set(clock: &ManualClock, seconds: i64) {
        *clock.0.lock().unwrap() = start() + TimeDelta::seconds(seconds);
    }

    fn published(ring: &SigningKeyRing) -> Vec<String> {
        let jwks = ring.jwks();
        let keys = jwks["keys"].as_array().unwrap().iter();
        keys.map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn shared_keys_follow_one_another_by_the_clock() {
        let [configured, one, two] = [0; 3].map(|_| SigningKey::generate());
        let (clock, ring) = ring(&configured);
        assert_eq!(ring.replace(vec![open(&one, 600), open(&two, 10_000)]), [""; 0]);
        let kid = |key: &SigningKey| key.kid().to_owned();
        for (now, signing, expected) in [
            (0, &configured, vec![kid(&configured), kid(&one), kid(&two)]),
            (600, &one, vec![kid(&one), kid(&configured), kid(&two)]),
            (10_000, &two, vec![kid(&two), kid(&configured), kid(&one)]),
            (10_000 + 3_691, &two, vec![kid(&two), kid(&configured)]),
        ] {
            set(&clock, now);
            assert_eq!(ring.signing().kid(), signing.kid(), "{now}");
            assert_eq!(published(&ring), expected, "{now}");
            for kid in &expected {
                assert!(ring.accepted(kid).is_some(), "{now} {kid}");
            }
        }
        assert!(ring.accepted(one.kid()).is_none(), "it is retired");
    }

    #[test]
    fn a_key_that_cannot_be_read_leaves_signing_to_the_configured_one() {
        let [configured, one, two] = [0; 3].map(|_| SigningKey::generate());
        let (clock, ring) = ring(&configured);
        let sealed = OpenSigningKey {
            private: None,
            ..open(&two, 200)
        };
        let misnamed = OpenSigningKey {
            kid: "other".into(),
            ..open(&two, 300)
        };
        let unreadable = ring.replace(vec![open(&one, 100), sealed, misnamed]);
        assert_eq!(unreadable, [two.kid(), "other"]);
        set(&clock, 150);
        assert_eq!(ring.signing().kid(), one.kid());
        set(&clock, 250);
        assert_eq!(ring.signing().kid(), configured.kid());
        assert!(ring.accepted(one.kid()).is_some() && ring.accepted("other").is_none());
    }

    #[test]
    fn signatures_are_verified_with_the_key_that_they_name() {
        let configured = SigningKey::generate();
        let (_, ring) = ring(&configured);
        let signature = ring.sign(b"head");
        assert_eq!(signature.kid, configured.kid());
        assert!(ring.verifies(&signature.public_key, b"head", &signature.bytes));
        assert!(!ring.verifies(&signature.public_key, b"heaD", &signature.bytes));
        assert!(!ring.verifies(&[0; 32], b"head", &signature.bytes));
        assert!(!ring.verifies(&[], b"head", &[]));
    }

    #[test]
    fn no_key_and_one_key_twice_are_refused() {
        let clock = || Arc::new(ManualClock(Mutex::new(start())));
        let key = SigningKey::generate();
        let error = |keys| SigningKeyRing::new(keys, clock()).err();
        assert_eq!(error(vec![]), Some(AccessTokensError::NoKey));
        let twice = AccessTokensError::SameKey(key.kid().into());
        assert_eq!(error(vec![key.clone(), key]), Some(twice));
    }
}
