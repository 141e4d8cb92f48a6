use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta};
use tenantry_domain::identity::{
    ChallengeError, ChallengeOffer, ChallengePurpose, ChallengeVerifier, SpentChallenges,
};
use tenantry_domain::kernel::{Clock, SystemScope, Time};

use crate::secret;

/// Challenges whose answer costs the client computing time, and no other service is needed for.
///
/// A challenge is signed and not stored: purpose, difficulty, expiry, 16 random bytes and a MAC. The server checks an answer
/// with two hashes. Only an answered challenge is stored, so a client pays for each row with its work.
pub struct ProofOfWork {
    key: hmac::Key,
    difficulty: u8,
    lifetime: TimeDelta,
    spent: Arc<dyn SpentChallenges>,
    clock: Arc<dyn Clock>,
}

impl ProofOfWork {
    /// Challenges of `difficulty` zero bits (1 to 32), which live for `minutes` (1 to 60), signed with this secret, for example
    /// [`crate::SigningKey::derive_secret`].
    pub fn new(
        secret: &[u8; 32],
        difficulty: u8,
        minutes: u32,
        spent: Arc<dyn SpentChallenges>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            key: secret::hmac_key(secret),
            difficulty: difficulty.clamp(1, 32),
            lifetime: TimeDelta::minutes(minutes.clamp(1, 60).into()),
            spent,
            clock,
        }
    }

    fn sign(&self, purpose: ChallengePurpose, expires_at: Time) -> String {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.push(number_of(purpose));
        bytes.push(self.difficulty);
        bytes.extend_from_slice(&expires_at.timestamp().to_be_bytes());
        bytes.extend_from_slice(&secret::random::<16>());
        let mac = self.mac(&bytes);
        bytes.extend_from_slice(&mac);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What a challenge of ours says: purpose, difficulty, expiry in Unix seconds.
    fn read(&self, challenge: &str) -> Option<(u8, u8, i64)> {
        let bytes = URL_SAFE_NO_PAD.decode(challenge).ok()?;
        let bytes: [u8; LENGTH] = bytes.try_into().ok()?;
        let (signed, mac) = bytes.split_at(SIGNED);
        constant_time::verify_slices_are_equal(&self.mac(signed), mac).ok()?;
        let expires = signed.get(2..10)?.try_into().ok()?;
        Some((signed[0], signed[1], i64::from_be_bytes(expires)))
    }

    fn mac(&self, signed: &[u8]) -> [u8; LENGTH - SIGNED] {
        let mut half = [0; LENGTH - SIGNED];
        half.copy_from_slice(&secret::hmac_sha256(&self.key, &[signed])[..LENGTH - SIGNED]);
        half
    }
}

#[async_trait]
impl ChallengeVerifier for ProofOfWork {
    fn offer(&self, purpose: ChallengePurpose) -> ChallengeOffer {
        let expires_at = self.clock.now() + self.lifetime;
        // Whole seconds, as they are signed.
        let expires_at = DateTime::from_timestamp(expires_at.timestamp(), 0).unwrap_or(expires_at);
        ChallengeOffer::ProofOfWork {
            challenge: self.sign(purpose, expires_at),
            difficulty: self.difficulty,
            expires_at,
        }
    }

    async fn verify(
        &self,
        purpose: ChallengePurpose,
        response: &str,
        _: Option<IpAddr>,
    ) -> Result<(), ChallengeError> {
        let refused = |why| Err(ChallengeError::Refused(why));
        let parts = response
            .split_once('.')
            .filter(|(_, nonce)| nonce.len() <= LONGEST_NONCE);
        let read = parts.and_then(|(challenge, _)| Some((challenge, self.read(challenge)?)));
        let Some((challenge, (number, difficulty, expires))) = read else {
            return refused("is not an answer to a challenge of this server");
        };
        if number != number_of(purpose) {
            return refused("is for another purpose");
        }
        let now = self.clock.now();
        let expires_at = DateTime::from_timestamp(expires, 0).filter(|at| *at > now);
        let Some(expires_at) = expires_at else {
            return refused("has expired");
        };
        if leading_zeros(&secret::sha256(response.as_bytes())) < difficulty.into() {
            return refused("does not have the required number of zero bits");
        }
        let because = SystemScope::because("a challenge was answered");
        let spent = secret::sha256(challenge.as_bytes());
        match self.spent.spend(because, spent, expires_at, now).await {
            Ok(true) => Ok(()),
            Ok(false) => refused("was used already"),
            Err(error) => Err(ChallengeError::Unavailable(error.to_string())),
        }
    }
}

const SIGNED: usize = 26;
const LENGTH: usize = 42;
const LONGEST_NONCE: usize = 64;

/// The number of a purpose in a challenge; it never changes.
const fn number_of(purpose: ChallengePurpose) -> u8 {
    match purpose {
        ChallengePurpose::SignUp => 1,
        ChallengePurpose::Register => 2,
        ChallengePurpose::ForgotPassword => 3,
        ChallengePurpose::Discover => 4,
    }
}

fn leading_zeros(hash: &[u8; 32]) -> u32 {
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    u64::from_be_bytes(first).leading_zeros()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Mutex;

    use tenantry_domain::kernel::StoreError;

    use super::*;

    struct ManualClock(Mutex<Time>);

    impl Clock for ManualClock {
        fn now(&self) -> Time {
            *self.0.lock().unwrap()
        }
    }

    #[derive(Default)]
    struct Seen(Mutex<HashSet<[u8; 32]>>);

    #[async_trait]
    impl SpentChallenges for Seen {
        async fn spend(&self, _: SystemScope, hash: [u8; 32], _: Time, _: Time) -> Result<bool, StoreError> {
            Ok(self.0.lock().unwrap().insert(hash))
        }
    }

    fn work(secret: u8) -> (ProofOfWork, Arc<ManualClock>) {
        let start = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let clock = Arc::new(ManualClock(Mutex::new(start)));
        let spent = Arc::new(Seen::default());
        (ProofOfWork::new(&[secret; 32], 8, 5, spent, clock.clone()), clock)
    }

    fn challenge(work: &ProofOfWork, purpose: ChallengePurpose) -> String {
        match work.offer(purpose) {
            ChallengeOffer::ProofOfWork { challenge, .. } => challenge,
            ChallengeOffer::Widget { .. } => unreachable!(),
        }
    }

    fn solve(challenge: &str, right: bool) -> String {
        let mut answers = (0..).map(|nonce| format!("{challenge}.{nonce}"));
        let is_right = |text: &String| leading_zeros(&secret::sha256(text.as_bytes())) >= 8;
        answers.find(|text| is_right(text) == right).unwrap()
    }

    async fn refusal(work: &ProofOfWork, response: &str) -> &'static str {
        let verified = work.verify(ChallengePurpose::SignUp, response, None).await;
        match verified.unwrap_err() {
            ChallengeError::Refused(why) => why,
            error => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn a_solved_challenge_is_accepted_once() {
        let (work, _) = work(7);
        let solved = solve(&challenge(&work, ChallengePurpose::SignUp), true);
        let verify = || work.verify(ChallengePurpose::SignUp, &solved, None);
        assert_eq!(verify().await, Ok(()));
        assert_eq!(refusal(&work, &solved).await, "was used already");
        // Nor with another nonce.
        let challenge = solved.split_once('.').unwrap().0;
        let mut others = (0..).map(|nonce| format!("{challenge}.x{nonce}"));
        let other = others.find(|text| leading_zeros(&secret::sha256(text.as_bytes())) >= 8);
        assert_eq!(refusal(&work, &other.unwrap()).await, "was used already");
    }

    #[tokio::test]
    async fn a_wrong_answer_is_refused_with_its_reason() {
        let (work, clock) = work(7);
        let foreign = "is not an answer to a challenge of this server";
        let own = challenge(&work, ChallengePurpose::SignUp);
        let unsolved = "does not have the required number of zero bits";
        assert_eq!(refusal(&work, &solve(&own, false)).await, unsolved);
        let other = challenge(&work, ChallengePurpose::Register);
        assert_eq!(
            refusal(&work, &solve(&other, true)).await,
            "is for another purpose"
        );
        let (others, _) = super::tests::work(8);
        let forged = challenge(&others, ChallengePurpose::SignUp);
        assert_eq!(refusal(&work, &solve(&forged, true)).await, foreign);
        // Easier, later or for another purpose: every byte is signed.
        for place in 0..SIGNED {
            let mut bytes = URL_SAFE_NO_PAD.decode(&own).unwrap();
            bytes[place] ^= 1;
            let changed = URL_SAFE_NO_PAD.encode(bytes);
            assert_eq!(
                refusal(&work, &solve(&changed, true)).await,
                foreign,
                "byte {place}"
            );
        }
        let long = format!("{own}.{}", "0".repeat(LONGEST_NONCE + 1));
        for text in ["", ".", "a.b", "\u{fc}.1", &own, &long] {
            assert_eq!(refusal(&work, text).await, foreign, "{text}");
        }
        let solved = solve(&own, true);
        *clock.0.lock().unwrap() += TimeDelta::seconds(300);
        assert_eq!(refusal(&work, &solved).await, "has expired");
    }
}
