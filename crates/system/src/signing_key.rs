use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, EncodingKey};
use tenantry_domain::identity::Signature;

use crate::secret;

/// An Ed25519 key pair that signs access tokens (RFC 8037). `Debug` shows its name only.
#[derive(Clone)]
pub struct SigningKey {
    /// Holds the private key as PKCS#8, always version 1: the same key is the same bytes, however it was
    /// written.
    private: EncodingKey,
    public: DecodingKey,
    /// The public key as a JWK has it: base64url of 32 bytes.
    x: String,
    kid: String,
}

impl SigningKey {
    /// A fresh key.
    ///
    /// # Panics
    /// When the machine has no random generator.
    pub fn generate() -> Self {
        let pair = Ed25519KeyPair::generate().map_err(|_| SigningKeyError::NotEd25519);
        pair.and_then(|pair| Self::of(&pair))
            .expect("the machine's random generator works")
    }

    /// The key in a PEM text of one `PRIVATE KEY` block (PKCS#8, RFC 5958, unencrypted), as
    /// [`Self::to_pem`] and `openssl genpkey -algorithm ED25519` write it.
    ///
    /// # Errors
    /// [`SigningKeyError`].
    pub fn from_pem(pem: &str) -> Result<Self, SigningKeyError> {
        let pkcs8 = from_block(pem).ok_or(SigningKeyError::NotPem)?;
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8).map_err(|_| SigningKeyError::NotEd25519)?;
        Self::of(&pair)
    }

    /// The private key as a PEM text: a secret.
    pub fn to_pem(&self) -> String {
        format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(self.private.as_bytes()))
    }

    /// The key's name: its thumbprint after RFC 7638, which is the base64url of the SHA-256 of its public
    /// JWK's required members in order.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// A secret for another purpose, named by `label`: HMAC-SHA256 of the label under the private key. So a
    /// deployment has one secret to keep. What one label yields says nothing of the key or of another label.
    pub fn derive_secret(&self, label: &str) -> [u8; 32] {
        secret::hmac_sha256(&secret::hmac_key(self.private.as_bytes()), &[label.as_bytes()])
    }

    /// Signs a text.
    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        let pair = Ed25519KeyPair::from_pkcs8(self.private.as_bytes())
            .expect("a signing key holds the PKCS#8 of a key pair");
        Signature {
            kid: self.kid.clone(),
            public_key: pair.public_key().as_ref().to_vec(),
            bytes: pair.sign(message).as_ref().to_vec(),
        }
    }

    /// Whether a signature of a text is that of a public key.
    pub(crate) fn verifies(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, public_key);
        key.verify(message, signature).is_ok()
    }

    pub(crate) const fn private(&self) -> &EncodingKey {
        &self.private
    }

    pub(crate) const fn public(&self) -> &DecodingKey {
        &self.public
    }

    /// The public key as a JWK (RFC 7517, RFC 8037 section 2).
    pub(crate) fn jwk(&self) -> serde_json::Value {
        serde_json::json!({
            "kty": "OKP", "crv": "Ed25519", "x": self.x, "use": "sig", "alg": "EdDSA", "kid": self.kid,
        })
    }

    fn of(pair: &Ed25519KeyPair) -> Result<Self, SigningKeyError> {
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| SigningKeyError::NotEd25519)?;
        let public = pair.public_key().as_ref();
        let x = URL_SAFE_NO_PAD.encode(public);
        let kid = thumbprint(&x);
        let (private, public) = (
            EncodingKey::from_ed_der(pkcs8.as_ref()),
            DecodingKey::from_ed_der(public),
        );
        Ok(Self {
            private,
            public,
            x,
            kid,
        })
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey({})", self.kid)
    }
}

/// Why a text is not a signing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningKeyError {
    /// Not one PEM block of that name.
    #[error("the signing key is not one PEM block 'PRIVATE KEY'")]
    NotPem,
    /// The block holds something else.
    #[error("the signing key is not an unencrypted Ed25519 key in PKCS#8")]
    NotEd25519,
}

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";

/// The bytes of a text that is exactly one block.
fn from_block(pem: &str) -> Option<Vec<u8>> {
    let body = pem.trim().strip_prefix(BEGIN)?.strip_suffix(END)?;
    STANDARD
        .decode(body.split_ascii_whitespace().collect::<String>())
        .ok()
}

/// RFC 7638 section 3 with the required members of an OKP key (RFC 8037 section 2), sorted, without
/// whitespace.
fn thumbprint(x: &str) -> String {
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    URL_SAFE_NO_PAD.encode(secret::sha256(members.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 8037 appendix A.1, as PKCS#8: the fixed prefix of RFC 8410 section 7 and the seed.
    fn rfc_8037() -> SigningKey {
        let seed = URL_SAFE_NO_PAD
            .decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
            .unwrap();
        let prefix = [
            0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
        ];
        let body = STANDARD.encode([&prefix[..], &seed].concat());
        SigningKey::from_pem(&format!("{BEGIN}\n{body}\n{END}")).unwrap()
    }

    /// RFC 8037 appendices A.2 and A.3.
    #[test]
    fn public_key_and_thumbprint_agree_with_rfc_8037() {
        let key = rfc_8037();
        assert_eq!(key.x, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn the_jwk_has_the_public_key_only() {
        let members: Vec<String> = rfc_8037().jwk().as_object().unwrap().keys().cloned().collect();
        assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x"]);
    }

    #[test]
    fn survives_its_pem() {
        let key = SigningKey::generate();
        let again = SigningKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!(again.kid(), key.kid());
        assert_eq!(again.to_pem(), key.to_pem());
        assert_eq!(again.derive_secret("refresh"), key.derive_secret("refresh"));
        let windows = format!("\r\n  {}  \r\n", key.to_pem().replace('\n', "\r\n"));
        assert_eq!(SigningKey::from_pem(&windows).unwrap().kid(), key.kid());
    }

    /// PKCS#8 version 2 repeats the public key; the derived secrets must not notice.
    #[test]
    fn both_versions_of_pkcs8_are_the_same_key() {
        let pair = Ed25519KeyPair::generate().unwrap();
        let pem = |der: &[u8]| format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(der));
        let one = SigningKey::from_pem(&pem(pair.to_pkcs8v1().unwrap().as_ref())).unwrap();
        let two = SigningKey::from_pem(&pem(pair.to_pkcs8().unwrap().as_ref())).unwrap();
        assert_eq!(one.kid(), two.kid());
        assert_eq!(one.derive_secret("a"), two.derive_secret("a"));
    }

    #[test]
    fn refuses_what_is_not_a_key() {
        let pem = SigningKey::generate().to_pem();
        for text in [
            String::new(),
            "rubbish".into(),
            pem.replace("PRIVATE KEY", "EC PRIVATE KEY"),
            format!("{pem}{pem}"),
            pem.replace("MC4", "M*4"),
        ] {
            assert_eq!(
                SigningKey::from_pem(&text).unwrap_err(),
                SigningKeyError::NotPem,
                "{text}"
            );
        }
        for body in ["", "AAAA", &STANDARD.encode([7; 48])] {
            let text = format!("{BEGIN}\n{body}\n{END}\n");
            assert_eq!(
                SigningKey::from_pem(&text).unwrap_err(),
                SigningKeyError::NotEd25519,
                "{text}"
            );
        }
    }

    #[test]
    fn derived_secrets_differ_by_label_and_by_key() {
        let (one, other) = (SigningKey::generate(), SigningKey::generate());
        assert_ne!(one.derive_secret("a"), one.derive_secret("b"));
        assert_ne!(one.derive_secret("a"), other.derive_secret("a"));
    }

    #[test]
    fn debug_shows_the_name_only() {
        let key = rfc_8037();
        assert_eq!(format!("{key:?}"), format!("SigningKey({})", key.kid()));
    }
}
