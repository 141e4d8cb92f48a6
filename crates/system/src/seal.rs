use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use tenantry_domain::kernel::Seal;

use crate::secret;

/// Seals with AES-256-GCM (NIST SP 800-38D).
///
/// Each place has a key of its own, HMAC-SHA256 of its name: what was sealed for one place does not open in another,
/// and the random nonces of one key never become too many. What is stored is the nonce, then the ciphertext with
/// its tag.
pub struct AeadSeal {
    current: hmac::Key,
    former: Vec<hmac::Key>,
}

impl AeadSeal {
    /// Seals and opens with this secret, for example [`crate::SigningKey::derive_secret`].
    pub fn new(secret: &[u8; 32]) -> Self {
        Self {
            current: secret::hmac_key(secret),
            former: Vec::new(),
        }
    }

    /// Also opens what was sealed with an earlier secret.
    #[must_use]
    pub fn opening(mut self, earlier: &[u8; 32]) -> Self {
        self.former.push(secret::hmac_key(earlier));
        self
    }
}

impl Seal for AeadSeal {
    /// # Panics
    /// When the machine has no random generator.
    fn seal(&self, place: &str, plain: &[u8]) -> Vec<u8> {
        let nonce: [u8; NONCE_LEN] = secret::random();
        let mut sealed = plain.to_vec();
        key_of(&self.current, place)
            .seal_in_place_append_tag(Nonce::from(&nonce), Aad::empty(), &mut sealed)
            .expect("a text in memory is shorter than the 64 GiB that AES-GCM can seal");
        [&nonce[..], &sealed].concat()
    }

    fn open(&self, place: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        std::iter::once(&self.current)
            .chain(&self.former)
            .find_map(|secret| open_with(secret, place, sealed))
    }

    fn digest(&self, place: &str, plain: &[u8]) -> [u8; 32] {
        digest_with(&self.current, place, plain)
    }

    fn is_digest(&self, place: &str, plain: &[u8], digest: &[u8; 32]) -> bool {
        let mut secrets = std::iter::once(&self.current).chain(&self.former);
        secrets.any(|secret| digest_with(secret, place, plain) == *digest)
    }

    fn is_current(&self, place: &str, sealed: &[u8]) -> bool {
        open_with(&self.current, place, sealed).is_some()
    }

    /// # Panics
    /// When the machine has no random generator.
    fn new_data_key(&self, place: &str) -> Vec<u8> {
        self.seal(place, &secret::random::<32>())
    }

    fn with_data_key(&self, place: &str, sealed: &[u8]) -> Option<Arc<dyn Seal>> {
        let key: [u8; 32] = self.open(place, sealed)?.try_into().ok()?;
        Some(Arc::new(Self::new(&key)))
    }
}

fn open_with(secret: &hmac::Key, place: &str, sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut opened = sealed.to_vec();
    let plain = key_of(secret, place).open_in_place(Nonce::from(nonce), Aad::empty(), &mut opened);
    plain.ok().map(|plain| plain.to_vec())
}

/// The prefix keeps it apart from the key of every place.
fn digest_with(secret: &hmac::Key, place: &str, plain: &[u8]) -> [u8; 32] {
    secret::hmac_sha256(secret, &[b"digest\n", place.as_bytes(), b"\n", plain])
}

fn key_of(secret: &hmac::Key, place: &str) -> LessSafeKey {
    let bytes = secret::hmac_sha256(secret, &[place.as_bytes()]);
    let key = UnboundKey::new(&AES_256_GCM, &bytes).expect("AES-256 takes 32 bytes");
    LessSafeKey::new(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: [u8; 32] = [7; 32];

    #[test]
    fn what_was_sealed_opens_in_its_place_only() {
        let seal = AeadSeal::new(&SECRET);
        for plain in [&b""[..], b"a", &[0; 100_000]] {
            let sealed = seal.seal("here", plain);
            assert_eq!(seal.open("here", &sealed).as_deref(), Some(plain));
            assert_eq!(seal.open("there", &sealed), None);
        }
    }

    #[test]
    fn a_digest_is_of_its_place_and_secret_only() {
        let seal = AeadSeal::new(&SECRET);
        let digest = seal.digest("here", b"password");
        assert!(seal.is_digest("here", b"password", &digest));
        assert!(!seal.is_digest("there", b"password", &digest));
        assert!(!seal.is_digest("here", b"passwort", &digest));
        let next = AeadSeal::new(&[8; 32]);
        assert!(!next.is_digest("here", b"password", &digest));
        assert!(next.opening(&SECRET).is_digest("here", b"password", &digest));
    }

    #[test]
    fn the_same_text_never_looks_the_same_and_is_not_to_be_seen() {
        let seal = AeadSeal::new(&SECRET);
        let [one, other] = [0, 1].map(|_| seal.seal("here", b"password"));
        assert_ne!(one, other);
        assert!(!one.windows(8).any(|window| window == b"password"));
    }

    #[test]
    fn what_was_changed_or_cut_does_not_open() {
        let seal = AeadSeal::new(&SECRET);
        let sealed = seal.seal("here", b"text");
        for place in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[place] ^= 1;
            assert_eq!(seal.open("here", &changed), None, "byte {place}");
            assert_eq!(seal.open("here", &sealed[..place]), None, "{place} bytes");
        }
    }

    #[test]
    fn data_key_opens_in_its_place_only_and_differs_each_time() {
        let seal = AeadSeal::new(&SECRET);
        let [one, other] = ["1", "1"].map(|place| seal.new_data_key(place));
        assert!(seal.with_data_key("2", &one).is_none());
        let [one, other] = [one, other].map(|key| seal.with_data_key("1", &key).unwrap());
        let sealed = one.seal("here", b"text");
        assert_eq!(one.open("here", &sealed).as_deref(), Some(&b"text"[..]));
        assert_eq!(other.open("here", &sealed), None);
        assert_eq!(seal.open("here", &sealed), None);
    }

    #[test]
    fn an_earlier_secret_opens_but_does_not_seal() {
        let old = AeadSeal::new(&SECRET);
        let sealed = old.seal("here", b"text");
        assert_eq!(AeadSeal::new(&[8; 32]).open("here", &sealed), None);
        let rotated = AeadSeal::new(&[8; 32]).opening(&SECRET);
        assert_eq!(rotated.open("here", &sealed).as_deref(), Some(&b"text"[..]));
        assert_eq!(old.open("here", &rotated.seal("here", b"text")), None);
        assert!(old.is_current("here", &sealed) && !rotated.is_current("here", &sealed));
        assert!(rotated.is_current("here", &rotated.seal("here", b"text")));
    }
}
