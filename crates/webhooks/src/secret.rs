use aws_lc_rs::hmac;
use aws_lc_rs::rand;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tenantry_domain::webhooks::{NewSecret, SecretError, SignatureKind, SigningSecret, WebhookKeys};

const HMAC_PREFIX: &str = "whsec_";
const PRIVATE_PREFIX: &str = "whsk_";
const PUBLIC_PREFIX: &str = "whpk_";

/// The lengths that Standard Webhooks allows for the secret of an HMAC, in bytes.
const HMAC_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// The bytes of a new secret: as many as the HMAC has, and as the seed of Ed25519.
const NEW_BYTES: usize = 32;

/// The bytes of a private key of Ed25519, and of one with its public key behind it, as other senders write it.
const SEED_BYTES: usize = 32;
const PAIR_BYTES: usize = 64;

/// Makes and reads the secrets of Standard Webhooks.
#[derive(Debug, Clone, Copy, Default)]
pub struct StandardKeys;

impl WebhookKeys for StandardKeys {
    fn generate(&self, kind: SignatureKind) -> Result<NewSecret, SecretError> {
        let mut bytes = [0; NEW_BYTES];
        rand::fill(&mut bytes).map_err(|_| SecretError::Entropy)?;
        let prefix = match kind {
            SignatureKind::Hmac => HMAC_PREFIX,
            SignatureKind::Ed25519 => PRIVATE_PREFIX,
        };
        self.read(&format!("{prefix}{}", STANDARD.encode(bytes)))
    }

    fn read(&self, text: &str) -> Result<NewSecret, SecretError> {
        let key = SigningKey::parse(text)?;
        Ok(NewSecret {
            secret: SigningSecret::stored(text.to_owned()),
            public_key: key.public_key(),
        })
    }
}

/// A secret, ready to sign.
pub(crate) enum SigningKey {
    Hmac(Box<hmac::Key>),
    Ed25519(Ed25519KeyPair),
}

impl SigningKey {
    pub(crate) fn parse(text: &str) -> Result<Self, SecretError> {
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| SecretError::Base64);
        if let Some(text) = text.strip_prefix(HMAC_PREFIX) {
            let bytes = decode(text)?;
            if !HMAC_BYTES.contains(&bytes.len()) {
                return Err(SecretError::HmacLength(bytes.len()));
            }
            let key = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
            return Ok(Self::Hmac(Box::new(key)));
        }
        let bytes = decode(text.strip_prefix(PRIVATE_PREFIX).ok_or(SecretError::Prefix)?)?;
        let pair = match bytes.len() {
            SEED_BYTES => Ed25519KeyPair::from_seed_unchecked(&bytes),
            PAIR_BYTES => {
                let (seed, public) = bytes.split_at(SEED_BYTES);
                Ed25519KeyPair::from_seed_and_public_key(seed, public)
            }
            length => return Err(SecretError::KeyLength(length)),
        };
        pair.map(Self::Ed25519).map_err(|_| SecretError::KeyMismatch)
    }

    /// The public key, as the receiver is given it.
    fn public_key(&self) -> Option<String> {
        match self {
            Self::Hmac(_) => None,
            Self::Ed25519(pair) => {
                let key = STANDARD.encode(pair.public_key().as_ref());
                Some(format!("{PUBLIC_PREFIX}{key}"))
            }
        }
    }

    /// The signature of a content, with its version.
    fn sign(&self, content: &[u8]) -> String {
        let (version, signature) = match self {
            Self::Hmac(key) => (SignatureKind::Hmac, STANDARD.encode(hmac::sign(key, content))),
            Self::Ed25519(pair) => (SignatureKind::Ed25519, STANDARD.encode(pair.sign(content))),
        };
        format!("{},{signature}", version.as_str())
    }
}

/// The value of `webhook-signature`: a signature by each key, with spaces between.
pub(crate) fn signatures(keys: &[SigningKey], id: &str, timestamp: i64, body: &str) -> String {
    let content = format!("{id}.{timestamp}.{body}");
    let each = keys.iter().map(|key| key.sign(content.as_bytes()));
    each.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
    const TIMESTAMP: i64 = 1_614_265_330;
    const BODY: &str = r#"{"test": 2432232314}"#;

    fn sign(secrets: &[&str]) -> String {
        let keys: Vec<_> = secrets
            .iter()
            .map(|secret| SigningKey::parse(secret).unwrap())
            .collect();
        signatures(&keys, ID, TIMESTAMP, BODY)
    }

    const HMAC_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const HMAC_SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    /// A vector of the reference library in Go: the key is a seed.
    const SEED: &str = "whsk_VEVTVFNJR05JTkdLRVlET05PVFVTRVRISVNGT1JBTlk=";
    const SEED_SIGNATURE: &str =
        "v1a,tQ9V2XOqn7jL/DQenEFpqIugdBVtiMmER5mhSkXBNwM0mkATuDe6KYYUuxqtaiHeYGb7KaaBRdM5WqyeFiL8Ag==";

    /// A vector of Svix: the key has its public key behind it.
    const PAIR: &str =
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
    const PAIR_SIGNATURE: &str =
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";

    #[test]
    fn vectors_of_the_standard_are_met() {
        assert_eq!(sign(&[HMAC_SECRET]), HMAC_SIGNATURE);
        assert_eq!(sign(&[SEED]), SEED_SIGNATURE);
        assert_eq!(sign(&[PAIR]), PAIR_SIGNATURE);
        let all = format!("{HMAC_SIGNATURE} {SEED_SIGNATURE} {PAIR_SIGNATURE}");
        assert_eq!(sign(&[HMAC_SECRET, SEED, PAIR]), all);
    }

    #[test]
    fn texts_that_are_no_secrets_are_refused() {
        let encoded = |prefix: &str, bytes: usize| format!("{prefix}{}", STANDARD.encode(vec![7; bytes]));
        for (text, error) in [
            (String::new(), SecretError::Prefix),
            ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into(), SecretError::Prefix),
            (
                "WHSEC_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".into(),
                SecretError::Prefix,
            ),
            (encoded("whpk_", 32), SecretError::Prefix),
            ("whsec_?".into(), SecretError::Base64),
            ("whsk_AA=A".into(), SecretError::Base64),
            (encoded("whsec_", 23), SecretError::HmacLength(23)),
            (encoded("whsec_", 65), SecretError::HmacLength(65)),
            (encoded("whsk_", 31), SecretError::KeyLength(31)),
            (encoded("whsk_", 33), SecretError::KeyLength(33)),
            (encoded("whsk_", 64), SecretError::KeyMismatch),
        ] {
            assert_eq!(StandardKeys.read(&text), Err(error), "{text}");
        }
        for length in [24, 64] {
            assert!(StandardKeys.read(&encoded("whsec_", length)).is_ok());
        }
    }

    #[test]
    fn new_secrets_differ_and_are_read_again() {
        for kind in SignatureKind::ALL {
            let (one, other) = (
                StandardKeys.generate(kind).unwrap(),
                StandardKeys.generate(kind).unwrap(),
            );
            assert_ne!(one.secret, other.secret);
            assert_eq!(StandardKeys.read(one.secret.expose()), Ok(one.clone()));
            assert_eq!(one.public_key.is_some(), kind == SignatureKind::Ed25519);
            assert!(sign(&[one.secret.expose()]).starts_with(&format!("{},", kind.as_str())));
        }
        let public = StandardKeys.read(PAIR).unwrap().public_key;
        assert_eq!(
            public.as_deref(),
            Some("whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=")
        );
    }

    proptest! {
        #[test]
        fn signature_depends_on_each_part(id in "[a-z_]{1,20}", at in 1..4_000_000_000_i64, body in ".{0,60}") {
            for secret in [HMAC_SECRET, SEED] {
                let keys = [SigningKey::parse(secret).unwrap()];
                let signature = signatures(&keys, &id, at, &body);
                prop_assert_eq!(&signature, &signatures(&keys, &id, at, &body));
                prop_assert_ne!(&signature, &signatures(&keys, &format!("{id}x"), at, &body));
                prop_assert_ne!(&signature, &signatures(&keys, &id, at + 1, &body));
                prop_assert_ne!(&signature, &signatures(&keys, &id, at, &format!("{body} ")));
            }
        }
    }
}
