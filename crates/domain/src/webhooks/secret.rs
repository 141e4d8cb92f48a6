use std::time::Duration;

use crate::kernel::Time;
use crate::kernel::name::named_enum;

named_enum! {
    /// How a message is signed, by the names that Standard Webhooks has for it.
    pub enum SignatureKind {
        /// HMAC-SHA256 with a secret that both sides have (`whsec_`).
        Hmac = "v1",
        /// Ed25519: the server has the private key (`whsk_`), the receiver the public one (`whpk_`).
        Ed25519 = "v1a",
    }
}

/// A secret that signs messages, in the form of Standard Webhooks: `whsec_` or `whsk_` and base64. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningSecret(String);

impl SigningSecret {
    /// A secret that [`WebhookKeys`] has made or read, and that was stored since.
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// The secret itself. It is shown once, to the admin who creates it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningSecret(..)")
    }
}

/// A secret that was just made, and what the receiver needs to verify.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSecret {
    /// What signs.
    pub secret: SigningSecret,
    /// The public key (`whpk_`) of an Ed25519 secret; of an HMAC secret there is none, the receiver has the secret itself.
    pub public_key: Option<String>,
}

/// Why a text is no secret. It never holds the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// It begins with neither prefix.
    #[error("must begin with whsec_ or whsk_")]
    Prefix,
    /// What follows is not base64.
    #[error("must be base64 behind its prefix")]
    Base64,
    /// The secret of an HMAC is too short or too long.
    #[error("must have 24 to 64 bytes behind whsec_, has {0}")]
    HmacLength(usize),
    /// The private key has another length than a seed, or a seed with its public key.
    #[error("must have 32 or 64 bytes behind whsk_, has {0}")]
    KeyLength(usize),
    /// The public key is not the one of the private key.
    #[error("must have the public key of its private key")]
    KeyMismatch,
    /// The operating system gave no random numbers.
    #[error("no random numbers are available")]
    Entropy,
}

/// Makes and reads secrets.
pub trait WebhookKeys: Send + Sync {
    /// A new secret.
    ///
    /// # Errors
    /// [`SecretError::Entropy`].
    fn generate(&self, kind: SignatureKind) -> Result<NewSecret, SecretError>;

    /// A secret that a tenant brings along, with its public key.
    ///
    /// # Errors
    /// [`SecretError`].
    fn read(&self, text: &str) -> Result<NewSecret, SecretError>;
}

/// The secrets of an endpoint: the present one, and former ones that sign until their grace period is over, so that a receiver can change
/// to the present one in between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSecrets {
    /// The secret that was made last.
    pub current: SigningSecret,
    /// Those before, the latest first, each with the time until which it signs.
    pub former: Vec<(SigningSecret, Time)>,
}

impl EndpointSecrets {
    /// The most secrets that sign at once. Each costs a signature and a part of a header.
    pub const MOST: usize = 5;

    /// The longest grace period.
    pub const LONGEST_GRACE: Duration = Duration::from_hours(7 * 24);

    /// The secrets of a new endpoint.
    pub const fn new(current: SigningSecret) -> Self {
        Self {
            current,
            former: Vec::new(),
        }
    }

    /// Replaces the secret; the one before signs for the grace period, which is at most [`EndpointSecrets::LONGEST_GRACE`]. Without a
    /// grace period it signs nothing more, and neither do earlier ones: it may have leaked.
    pub fn rotate(&mut self, secret: SigningSecret, grace: Duration, now: Time) {
        let before = std::mem::replace(&mut self.current, secret);
        if grace.is_zero() {
            self.former.clear();
            return;
        }
        self.former
            .retain(|(former, until)| *until > now && *former != self.current && *former != before);
        if before != self.current {
            self.former
                .insert(0, (before, now + grace.min(Self::LONGEST_GRACE)));
        }
        self.former.truncate(Self::MOST - 1);
    }

    /// The secrets that sign at a time, the present one first.
    pub fn signing(&self, now: Time) -> Vec<SigningSecret> {
        let former = self.former.iter().filter(|(_, until)| *until > now);
        std::iter::once(&self.current)
            .chain(former.map(|(secret, _)| secret))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret(name: &str) -> SigningSecret {
        SigningSecret::stored(name.to_owned())
    }

    fn at(seconds: u64) -> Time {
        Time::from_timestamp(1_800_000_000, 0).unwrap() + Duration::from_secs(seconds)
    }

    fn names(secrets: &EndpointSecrets, now: Time) -> Vec<String> {
        let signing = secrets.signing(now);
        signing.iter().map(|secret| secret.expose().to_owned()).collect()
    }

    #[test]
    fn former_secret_signs_until_its_grace_is_over() {
        let mut secrets = EndpointSecrets::new(secret("a"));
        secrets.rotate(secret("b"), Duration::from_secs(60), at(0));
        assert_eq!(names(&secrets, at(59)), ["b", "a"]);
        assert_eq!(names(&secrets, at(60)), ["b"]);
        secrets.rotate(secret("c"), Duration::from_secs(60), at(30));
        assert_eq!(names(&secrets, at(40)), ["c", "b", "a"]);
        assert_eq!(names(&secrets, at(60)), ["c", "b"]);
        secrets.rotate(secret("d"), Duration::ZERO, at(40));
        assert_eq!(names(&secrets, at(40)), ["d"]);
    }

    #[test]
    fn grace_and_number_of_secrets_are_bounded() {
        let mut secrets = EndpointSecrets::new(secret("0"));
        for n in 1..10 {
            secrets.rotate(secret(&n.to_string()), Duration::MAX, at(n));
        }
        assert_eq!(names(&secrets, at(10)), ["9", "8", "7", "6", "5"]);
        assert_eq!(names(&secrets, at(9) + EndpointSecrets::LONGEST_GRACE), ["9"]);
    }

    #[test]
    fn same_secret_is_not_listed_twice() {
        let mut secrets = EndpointSecrets::new(secret("a"));
        for next in ["b", "a", "a"] {
            secrets.rotate(secret(next), Duration::from_secs(60), at(0));
        }
        assert_eq!(names(&secrets, at(1)), ["a", "b"]);
    }

    #[test]
    fn debug_output_hides_secrets() {
        let secrets = EndpointSecrets::new(secret("whsec_s3cret"));
        assert!(!format!("{secrets:?}").contains("s3cret"));
    }

    proptest! {
        #[test]
        fn present_secret_is_first_and_each_signs_once(steps in proptest::collection::vec((0..4_u8, 0..100_u64, 0..100_u64), 0..20)) {
            let mut secrets = EndpointSecrets::new(secret("start"));
            let mut now = 0;
            for (name, grace, pause) in steps {
                now += pause;
                let next = secret(&name.to_string());
                secrets.rotate(next.clone(), Duration::from_secs(grace), at(now));
                let signing = names(&secrets, at(now));
                prop_assert_eq!(&signing[0], next.expose());
                let mut unique = signing.clone();
                unique.sort();
                unique.dedup();
                prop_assert!(unique.len() == signing.len() && signing.len() <= EndpointSecrets::MOST, "{:?}", signing);
            }
        }
    }
}
