use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use uuid::Uuid;

use crate::secret;

/// The keys of opaque tokens that authenticate themselves: a prefix, and the base64url (without padding) of 80 bytes, which
/// are two ids of 16 bytes, a secret of 32, and the first 16 bytes of HMAC-SHA256 over those 64.
///
/// So what was not issued here is recognized without the database, and the tenant of a token, which is its first id, is
/// known before anything is looked up.
pub(crate) struct TokenKeys {
    prefix: &'static str,
    current: hmac::Key,
    former: Vec<hmac::Key>,
}

/// A token that was issued here.
pub(crate) struct SignedToken<'a> {
    /// The key that signed it.
    pub key: &'a hmac::Key,
    /// All of its bytes.
    pub bytes: [u8; LENGTH],
    /// The two ids that the token carries, in order.
    pub ids: [Uuid; 2],
}

impl TokenKeys {
    pub fn new(prefix: &'static str, secret: &[u8; 32]) -> Self {
        Self {
            prefix,
            current: secret::hmac_key(secret),
            former: Vec::new(),
        }
    }

    /// Also reads tokens that were signed with an earlier secret.
    pub fn read_also(&mut self, earlier: &[u8; 32]) {
        self.former.push(secret::hmac_key(earlier));
    }

    /// The text of a token.
    pub fn sign(&self, ids: [Uuid; 2], secret: &[u8; 32]) -> String {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend_from_slice(ids[0].as_bytes());
        bytes.extend_from_slice(ids[1].as_bytes());
        bytes.extend_from_slice(secret);
        let mac = mac(&self.current, &bytes);
        bytes.extend_from_slice(&mac);
        format!("{}{}", self.prefix, URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What a text says; `None` when it is no token of these keys.
    pub fn read(&self, text: &str) -> Option<SignedToken<'_>> {
        let bytes = decode(self.prefix, text)?;
        let (signed, presented) = bytes.split_at(SIGNED);
        let made =
            |key: &&hmac::Key| constant_time::verify_slices_are_equal(&mac(key, signed), presented).is_ok();
        let key = std::iter::once(&self.current).chain(&self.former).find(made)?;
        let id = |range| Uuid::from_slice(bytes.get(range)?).ok();
        Some(SignedToken {
            key,
            ids: [id(0..16)?, id(16..32)?],
            bytes,
        })
    }
}

/// Bytes that the MAC covers, and bytes with it.
const SIGNED: usize = 64;
pub(crate) const LENGTH: usize = 80;
/// Characters of 80 bytes in base64 without padding.
pub(crate) const TEXT: usize = 107;

/// The first half of the HMAC: 128 bits are enough against guessing and keep the token shorter (RFC 2104
/// section 5).
fn mac(key: &hmac::Key, signed: &[u8]) -> [u8; LENGTH - SIGNED] {
    let mut half = [0; LENGTH - SIGNED];
    half.copy_from_slice(&secret::hmac_sha256(key, &[signed])[..LENGTH - SIGNED]);
    half
}

pub(crate) fn decode(prefix: &str, token: &str) -> Option<[u8; LENGTH]> {
    let body = token.strip_prefix(prefix).filter(|body| body.len() == TEXT)?;
    URL_SAFE_NO_PAD.decode(body).ok()?.try_into().ok()
}
