use argon2::password_hash::phc::{self, Output, ParamsString, Salt};
use argon2::password_hash::{Error, PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tenantry_domain::{Password, PasswordError, PasswordHash, PasswordHasher};

use crate::bounded::Bounded;
use crate::secret;

/// Passwords hashed with Argon2id (RFC 9106, version 0x13), off the async threads, a bounded number at once.
///
/// Hashes are PHC strings and carry their own cost: changing [`PasswordCost`] applies to new hashes, old
/// ones still verify.
pub struct Argon2Passwords {
    argon2: Argon2<'static>,
    /// What a password is compared with when there is no user.
    nobody: phc::PasswordHash,
    bounded: Bounded,
}

impl Argon2Passwords {
    /// Hashes with `cost`; `at_once` hashes run at the same time (at least one), `queue` more may wait, and
    /// whoever comes then gets [`PasswordError::Busy`]. Memory in use is at most `at_once` times the
    /// cost's.
    ///
    /// # Panics
    /// When the machine has no random generator.
    pub fn new(cost: PasswordCost, at_once: usize, queue: usize) -> Self {
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, cost.0);
        let nobody = nobody(&argon2).expect("a salt of 16 and a hash of 32 bytes are a PHC string");
        Self {
            argon2,
            nobody,
            bounded: Bounded::new(at_once, queue),
        }
    }
}

#[async_trait]
impl PasswordHasher for Argon2Passwords {
    async fn hash(&self, password: Password) -> Result<PasswordHash, PasswordError> {
        if password.reveal().len() > LONGEST {
            return Err(PasswordError::Failed(format!(
                "a password has at most {LONGEST} bytes"
            )));
        }
        let argon2 = self.argon2.clone();
        self.bounded.run(move || make(&argon2, &password)).await?
    }

    /// A password of more than 1024 bytes is never right, and is not hashed.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] when the queue is full; [`PasswordError::Failed`] when the stored hash is
    /// malformed.
    async fn verify(&self, password: Password, hash: Option<PasswordHash>) -> Result<bool, PasswordError> {
        if password.reveal().len() > LONGEST {
            return Ok(false);
        }
        let expected = match hash {
            Some(stored) => read(&stored)?,
            None => self.nobody.clone(),
        };
        let argon2 = self.argon2.clone();
        self.bounded
            .run(move || check(&argon2, &password, &expected))
            .await?
    }

    /// 24 characters out of `A-Z a-z 0-9 - _`, 144 random bits.
    fn generate(&self) -> Password {
        Password::presented(URL_SAFE_NO_PAD.encode(secret::random::<18>()))
    }
}

/// What one Argon2id hash costs.
#[derive(Debug, Clone)]
pub struct PasswordCost(Params);

impl PasswordCost {
    /// `memory_kib` KiB of memory (7168 to 4194304), `iterations` passes over it (1 to 64), `lanes` of
    /// parallelism (1 to 16; they are computed one after the other here).
    ///
    /// # Errors
    /// Outside those ranges, and where memory × iterations is less than 35840: the cheapest of the equivalent
    /// settings that the OWASP Password Storage Cheat Sheet lists is 7168 KiB in 5 passes.
    pub fn new(memory_kib: u32, iterations: u32, lanes: u32) -> Result<Self, PasswordCostError> {
        let in_range = (7_168..=4_194_304).contains(&memory_kib)
            && (1..=64).contains(&iterations)
            && (1..=16).contains(&lanes);
        if !in_range {
            return Err(PasswordCostError::Range);
        }
        if u64::from(memory_kib) * u64::from(iterations) < 35_840 {
            return Err(PasswordCostError::Weak);
        }
        Params::new(memory_kib, iterations, lanes, None)
            .map(Self)
            .map_err(|_| PasswordCostError::Range)
    }

    /// The cheapest cost there is: 8 KiB, one pass, one lane. Insecure: for tests, where hashing would take
    /// most of the time.
    pub fn for_tests() -> Self {
        Self(
            Params::new(Params::MIN_M_COST, Params::MIN_T_COST, Params::MIN_P_COST, None).unwrap_or_default(),
        )
    }

    /// Memory, in KiB.
    pub const fn memory_kib(&self) -> u32 {
        self.0.m_cost()
    }

    /// Passes over the memory.
    pub const fn iterations(&self) -> u32 {
        self.0.t_cost()
    }

    /// Lanes.
    pub const fn lanes(&self) -> u32 {
        self.0.p_cost()
    }
}

impl Default for PasswordCost {
    /// 19 MiB, two passes, one lane: the first choice of the OWASP Password Storage Cheat Sheet.
    fn default() -> Self {
        Self(Params::new(19_456, 2, 1, None).unwrap_or_default())
    }
}

/// Why a password cost is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordCostError {
    /// A value is out of range.
    #[error("memory must be 7168 to 4194304 KiB, iterations 1 to 64, lanes 1 to 16")]
    Range,
    /// The whole is too cheap.
    #[error("memory (KiB) times iterations must be at least 35840; 19456 and 2 is a good choice")]
    Weak,
}

/// The longest password that is hashed, in bytes: a bound on the work somebody without an account can cause.
const LONGEST: usize = 1024;

/// A hash that no password has: random instead of computed. Comparing with it takes as long as with a real
/// one of the same cost, because the comparison computes a hash with the parameters that are written in it.
fn nobody(argon2: &Argon2<'_>) -> Result<phc::PasswordHash, Error> {
    Ok(phc::PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(argon2.params())?,
        salt: Some(Salt::new(&secret::random::<16>())?),
        hash: Some(Output::new(&secret::random::<32>())?),
    })
}

fn make(argon2: &Argon2<'_>, password: &Password) -> Result<PasswordHash, PasswordError> {
    let salt = secret::random::<16>();
    match argon2.hash_password_with_salt(password.reveal().as_bytes(), &salt) {
        Ok(hash) => Ok(PasswordHash::new(hash.to_string())),
        Err(error) => Err(PasswordError::Failed(error.to_string())),
    }
}

/// The stored hash; it must be complete, because the library takes one without salt or hash for a wrong
/// password.
fn read(stored: &PasswordHash) -> Result<phc::PasswordHash, PasswordError> {
    match phc::PasswordHash::new(stored.as_str()) {
        Ok(hash) if hash.salt.is_some() && hash.hash.is_some() => Ok(hash),
        Ok(_) => Err(PasswordError::Failed(
            "the stored password hash is incomplete".into(),
        )),
        Err(error) => Err(PasswordError::Failed(format!(
            "the stored password hash is malformed: {error}"
        ))),
    }
}

fn check(
    argon2: &Argon2<'_>,
    password: &Password,
    expected: &phc::PasswordHash,
) -> Result<bool, PasswordError> {
    match argon2.verify_password(password.reveal().as_bytes(), expected) {
        Ok(()) => Ok(true),
        Err(Error::PasswordInvalid) => Ok(false),
        Err(error) => Err(PasswordError::Failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn passwords() -> Argon2Passwords {
        Argon2Passwords::new(PasswordCost::for_tests(), 2, 8)
    }

    fn password(text: &str) -> Password {
        Password::presented(text.into())
    }

    #[tokio::test]
    async fn the_right_password_verifies_and_no_other() {
        let passwords = passwords();
        let hash = passwords.hash(password("correct horse")).await.unwrap();
        assert!(hash.as_str().starts_with("$argon2id$v=19$m=8,t=1,p=1$"));
        assert!(
            passwords
                .verify(password("correct horse"), Some(hash.clone()))
                .await
                .unwrap()
        );
        assert!(
            !passwords
                .verify(password("correct horsf"), Some(hash.clone()))
                .await
                .unwrap()
        );
        assert!(!passwords.verify(password(""), Some(hash)).await.unwrap());
    }

    #[tokio::test]
    async fn the_same_password_never_has_the_same_hash() {
        let passwords = passwords();
        let one = passwords.hash(password("same")).await.unwrap();
        assert!(one != passwords.hash(password("same")).await.unwrap());
    }

    #[tokio::test]
    async fn verifies_with_the_cost_stored_in_the_hash() {
        let cost = PasswordCost(Params::new(64, 3, 2, None).unwrap());
        let hash = Argon2Passwords::new(cost, 1, 1)
            .hash(password("moved"))
            .await
            .unwrap();
        assert!(hash.as_str().contains("m=64,t=3,p=2"));
        assert!(passwords().verify(password("moved"), Some(hash)).await.unwrap());
    }

    /// That nobody costs the same as somebody is shown by structure, not by a stopwatch: what a password is
    /// compared with is complete and names the same algorithm, version and parameters as a real hash, the
    /// comparison is a computed mismatch and not an early error, and it needs a turn like any other.
    #[tokio::test]
    async fn nobody_costs_the_same_as_somebody() {
        let passwords = Arc::new(Argon2Passwords::new(PasswordCost::for_tests(), 1, 1));
        let real = read(&passwords.hash(password("x")).await.unwrap()).unwrap();
        let nobody = read(&PasswordHash::new(passwords.nobody.to_string())).unwrap();
        assert_eq!((nobody.algorithm, nobody.version), (real.algorithm, real.version));
        assert_eq!(nobody.params.as_str(), real.params.as_str());
        assert_eq!(nobody.salt.unwrap().len(), real.salt.unwrap().len());
        assert_eq!(nobody.hash.unwrap().len(), real.hash.unwrap().len());
        assert!(!check(&passwords.argon2, &password("x"), &nobody).unwrap());
        assert!(!passwords.verify(password("x"), None).await.unwrap());

        let (release, released) = std::sync::mpsc::channel::<()>();
        let work = passwords.bounded.run(move || released.recv().is_err());
        let both = async { tokio::join!(work, passwords.verify(password("x"), None)) };
        let overflow = async {
            let busy = passwords.verify(password("x"), None).await;
            drop(release);
            busy
        };
        let ((work, nobody), busy) = tokio::join!(both, overflow);
        assert!(work.unwrap());
        assert!(!nobody.unwrap());
        assert!(matches!(busy, Err(PasswordError::Busy)));
    }

    #[tokio::test]
    async fn hashing_is_busy_too() {
        let passwords = Argon2Passwords::new(PasswordCost::for_tests(), 1, 0);
        let (release, released) = std::sync::mpsc::channel::<()>();
        let work = passwords.bounded.run(move || released.recv().is_err());
        let overflow = async {
            let busy = passwords.hash(password("x")).await;
            drop(release);
            busy
        };
        let (work, busy) = tokio::join!(work, overflow);
        assert!(work.unwrap());
        assert!(matches!(busy, Err(PasswordError::Busy)));
        passwords.hash(password("x")).await.unwrap();
    }

    #[tokio::test]
    async fn a_very_long_password_is_false_without_a_turn() {
        let passwords = Argon2Passwords::new(PasswordCost::for_tests(), 1, 0);
        let hash = passwords.hash(password(&"a".repeat(1024))).await.unwrap();
        assert!(
            passwords
                .verify(password(&"a".repeat(1024)), Some(hash.clone()))
                .await
                .unwrap()
        );

        let (release, released) = std::sync::mpsc::channel::<()>();
        let work = passwords.bounded.run(move || released.recv().is_err());
        let long = async {
            let long = passwords.verify(password(&"a".repeat(1025)), Some(hash)).await;
            drop(release);
            long
        };
        let (work, long) = tokio::join!(work, long);
        assert!(work.unwrap());
        assert!(!long.unwrap());
        assert!(matches!(
            passwords.hash(password(&"a".repeat(1025))).await,
            Err(PasswordError::Failed(_))
        ));
    }

    #[tokio::test]
    async fn a_malformed_stored_hash_is_a_failure_and_not_a_wrong_password() {
        let passwords = passwords();
        let salt = "c2FsdHNhbHRzYWx0c2FsdA";
        let complete = passwords.hash(password("x")).await.unwrap();
        for stored in [
            String::new(),
            "plaintext".into(),
            "$argon2id$v=19$m=8,t=1,p=1".into(),
            format!("$argon2id$v=19$m=8,t=1,p=1${salt}"),
            complete.as_str().replace("argon2id", "bcrypt"),
            complete.as_str().replace("v=19", "v=20"),
            complete.as_str().replace("m=8", "m=1"),
        ] {
            let outcome = passwords
                .verify(password("x"), Some(PasswordHash::new(stored.clone())))
                .await;
            assert!(
                matches!(outcome, Err(PasswordError::Failed(_))),
                "{stored}: {outcome:?}"
            );
        }
    }

    #[test]
    fn generated_passwords_are_24_url_safe_characters_and_differ() {
        let (one, other) = (passwords().generate(), passwords().generate());
        let url_safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        assert_eq!(one.reveal().len(), 24);
        assert!(one.reveal().chars().all(url_safe));
        assert!(one != other);
    }

    #[test]
    fn the_cost_is_owasps_and_cheaper_ones_are_refused() {
        let default = PasswordCost::default();
        assert_eq!(
            (default.memory_kib(), default.iterations(), default.lanes()),
            (19_456, 2, 1)
        );
        let tests = PasswordCost::for_tests();
        assert_eq!((tests.memory_kib(), tests.iterations(), tests.lanes()), (8, 1, 1));
        for (memory, passes) in [(47_104, 1), (19_456, 2), (12_288, 3), (9_216, 4), (7_168, 5)] {
            assert!(
                PasswordCost::new(memory, passes, 1).is_ok(),
                "{memory} KiB, {passes} passes"
            );
        }
        assert_eq!(
            PasswordCost::new(19_456, 1, 1).unwrap_err(),
            PasswordCostError::Weak
        );
        for (memory, passes, lanes) in [
            (8, 64, 1),
            (19_456, 0, 1),
            (19_456, 2, 0),
            (u32::MAX, 2, 1),
            (19_456, 65, 1),
        ] {
            assert_eq!(
                PasswordCost::new(memory, passes, lanes).unwrap_err(),
                PasswordCostError::Range
            );
        }
    }

    /// RFC 9106 has no vector for 0x13 without secret and data; this one is of the reference
    /// implementation's test suite (argon2id, m=65536, t=2, p=1, "password", "somesalt").
    #[test]
    fn agrees_with_the_reference_implementation() {
        let stored = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let expected = read(&PasswordHash::new(stored.into())).unwrap();
        let argon2 = passwords().argon2;
        assert!(check(&argon2, &password("password"), &expected).unwrap());
        assert!(!check(&argon2, &password("passwore"), &expected).unwrap());
    }
}
