use std::net::IpAddr;

use async_trait::async_trait;

use crate::identity::password_names::{self, normalized};
use crate::kernel::{Invalid, Network, StoreError, TenantId};

/// The product's name, which no password contains.
const PRODUCT: &str = "tenantry";

/// A password in the clear, on its way to be hashed. It is never logged: `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// A password as a caller presents it at login: no rule applies but a bound on the work.
    pub fn presented(text: String) -> Self {
        Self(text)
    }

    /// The fewest characters of a password that a person chooses.
    pub const SHORTEST: usize = 12;

    /// The most characters of one.
    pub const LONGEST: usize = 128;

    /// A password that a person chooses: 12 to 128 characters, after NIST SP 800-63B section 5.1.1.2 (length, no
    /// composition rules), without the names that an attacker of this account tries first: the product's, and `names`,
    /// which are the tenant's slug and name, and the person's name and mail address (also without what follows the `@`). Names are found
    /// with other separators too, and their words need 8 other letters or digits beside them: see `password_names`.
    ///
    /// The text is normalized first ([`normalized`]), and all rules judge that, so that no other form of the same letters
    /// passes. At least 12 characters must also have been typed: a few characters stand for a whole phrase.
    ///
    /// Whether it is one of the commonest is for [`PasswordHasher::is_common`]; see `dyn PasswordHasher::choose`.
    ///
    /// # Errors
    /// `weak_password` at `pointer`; the detail does not repeat the password.
    pub fn chosen(text: String, pointer: &str, names: &[&str]) -> Result<Self, Invalid> {
        let weak = |detail: String| Err(Invalid::one(pointer, "weak_password", detail));
        let typed = text.chars().count();
        let text = normalized(&text);
        let length = text.chars().count();
        let (shortest, longest) = (Self::SHORTEST, Self::LONGEST);
        if !(shortest..=longest).contains(&length) || typed < shortest {
            return weak(format!("must have {shortest} to {longest} characters"));
        }
        match password_names::fault(&text, names.iter().copied().chain([PRODUCT])) {
            Some(fault) => weak(fault),
            None => Ok(Self(text)),
        }
    }

    /// The text, for the hasher and for handing a generated password out once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

/// A password hash as a PHC string. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl PasswordHash {
    /// What stands before the hash of a password that is not in force yet.
    pub const PENDING: &'static str = "pending:";

    /// A hash as the hasher made it or the database kept it.
    pub fn new(phc: String) -> Self {
        Self(phc)
    }

    /// The PHC string, for adapters.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same hash, marked as that of a password which opens the account once the address of its user is proven.
    #[must_use]
    pub fn pending(&self) -> Self {
        Self(format!("{}{}", Self::PENDING, self.in_force().0))
    }

    /// Whether the password waits for the proof of the address.
    pub fn is_pending(&self) -> bool {
        self.0.starts_with(Self::PENDING)
    }

    /// The hash without the mark of [`PasswordHash::pending`], to compare a password with.
    #[must_use]
    pub fn in_force(&self) -> Self {
        Self(self.0.strip_prefix(Self::PENDING).unwrap_or(&self.0).to_owned())
    }
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

/// On whose behalf a password is hashed. Hashing takes a core for tens of milliseconds, so callers share it by this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashingCaller {
    /// What takes turns with the other class.
    pub class: CallerClass,
    /// The group that takes turns with other groups.
    pub group: CallerGroup,
    /// The networks that the request came from; none for commands on the server.
    pub networks: Vec<Network>,
}

/// What is known of a caller before the password is compared. Guests cannot keep known callers out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallerClass {
    /// It has a session, or it asks for an account from a network from which that account has logged in lately.
    Known,
    /// Any other caller.
    Guest,
}

/// Callers that share one turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CallerGroup {
    /// Users of a tenant, and callers that want to be.
    Tenant(TenantId),
    /// Callers that create a tenant.
    SignUp,
    /// Operators of the platform. They have places of their own, which no tenant can take.
    Operator,
}

impl CallerClass {
    /// The class of a caller who is known, or is not.
    pub const fn known_if(is_known: bool) -> Self {
        if is_known { Self::Known } else { Self::Guest }
    }
}

impl HashingCaller {
    /// A caller of this class and group whose request came from this address.
    pub fn new(class: CallerClass, group: CallerGroup, address: Option<IpAddr>) -> Self {
        Self {
            class,
            group,
            networks: Network::of(address),
        }
    }
}

/// What came out of comparing a password with a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// It is another password.
    Wrong,
    /// It is the password.
    Right,
    /// It is the password, and its hash is weaker than today's: hash it again and store that.
    Outdated,
}

impl Verified {
    /// Whether it is the password.
    pub const fn is_right(self) -> bool {
        matches!(self, Self::Right | Self::Outdated)
    }
}

/// Why a password could not be hashed or verified.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    /// Too many are being hashed already.
    #[error("too many passwords are being hashed")]
    Busy,
    /// The hasher failed.
    #[error("password hashing failed: {0}")]
    Failed(String),
}

/// Why a password hash that was made elsewhere is not accepted: what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RefusedHash(pub String);

impl From<PasswordError> for StoreError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Self::Unavailable("too many passwords are being hashed".into()),
            PasswordError::Failed(reason) => Self::Other(reason),
        }
    }
}

/// Hashes and verifies passwords off the async threads, a bounded number at once, shared fairly among callers.
#[async_trait]
pub trait PasswordHasher: Send + Sync {
    /// The hash of a password.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] when the caller has no place in the queue.
    async fn hash(&self, caller: &HashingCaller, password: Password) -> Result<PasswordHash, PasswordError>;

    /// Whether the password matches. `None` (no such user) costs the same time and is wrong.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] when the caller has no place in the queue.
    async fn verify(
        &self,
        caller: &HashingCaller,
        password: Password,
        hash: Option<PasswordHash>,
    ) -> Result<Verified, PasswordError>;

    /// Checks a password hash that was made elsewhere, so that comparing with it can neither fail nor take long.
    ///
    /// # Errors
    /// [`RefusedHash`], when the hash is of an unknown kind, malformed, or takes too much time or memory.
    fn import(&self, hash: String) -> Result<PasswordHash, RefusedHash>;

    /// Returns a hash that no password has, for a user who has no password yet. Comparing with it takes as long as with any other.
    fn unusable(&self) -> PasswordHash;

    /// Whether the password is among the first that an attacker tries: one of the commonest, a variation of them, or of
    /// `names`.
    fn is_common(&self, password: &Password, names: &[&str]) -> bool;

    /// A fresh random password of at least 128 bits.
    fn generate(&self) -> Password;
}

impl dyn PasswordHasher {
    /// A password that a person chooses, held to all rules: those of [`Password::chosen`], and it is none of the commonest.
    ///
    /// # Errors
    /// `weak_password` at `pointer`.
    pub fn choose(&self, text: String, pointer: &str, names: &[&str]) -> Result<Password, Invalid> {
        let password = Password::chosen(text, pointer, names)?;
        let names: Vec<_> = names.iter().map(|name| normalized(name)).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        if self.is_common(&password, &names) {
            let detail = "is one of the passwords that are tried first; choose one that is harder to guess";
            return Err(Invalid::one(pointer, "weak_password", detail));
        }
        Ok(password)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_has_its_length_and_none_of_the_names() {
        let names = ["initech", "Peter.Gibbons@initech.example", "ada@x.example"];
        let chosen = |text: &str| {
            Password::chosen(text.into(), "/password", &names)
                .map_err(|Invalid(errors)| (errors[0].code, errors[0].detail.clone()))
        };
        for text in [
            "correct horse",
            "123456789012",
            "ådaåda ådåda",
            "correcthorse",
            &"x".repeat(128),
            "canada maple",
        ] {
            assert!(chosen(text).is_ok(), "{text}");
        }
        for (text, detail) in [
            ("short", "must have 12 to 128 characters"),
            (&*"x".repeat(11), "must have 12 to 128 characters"),
            (&*"x".repeat(129), "must have 12 to 128 characters"),
            ("my INITECH stapler", "must not contain 'initech'"),
            ("peter.gibbons1999", "must not contain 'peter.gibbons'"),
            ("peter.gibbons@initech.example", "must not contain 'initech'"),
            ("I love Tenantry!", "must not contain 'tenantry'"),
        ] {
            assert_eq!(chosen(text), Err(("weak_password", detail.to_owned())), "{text}");
        }
    }

    /// Letters in another form are the same letters, in the password and in the names.
    #[test]
    fn rules_judge_the_normalized_password() {
        let chosen = |text: &str, name: &str| {
            Password::chosen(text.into(), "/password", &[name])
                .map(|password| password.reveal().to_owned())
                .map_err(|Invalid(errors)| errors[0].detail.clone())
        };
        for (text, name, detail) in [
            (
                "my ＩＮＩＴＥＣＨ stapler",
                "initech",
                "must not contain 'initech'",
            ),
            ("I love 𝓣𝓮𝓷𝓪𝓷𝓽𝓻𝔂!", "x", "must not contain 'tenantry'"),
            (
                "zu\u{308}rich by night",
                "z\u{fc}rich@x.example",
                "must not contain 'z\u{fc}rich'",
            ),
            ("our \u{212a}elvin 99", "kelvin", "must not contain 'kelvin'"),
            // Eleven characters of two code points each, and one that stands for eighteen.
            (&"e\u{301}".repeat(11), "x", "must have 12 to 128 characters"),
            ("\u{fdfa}", "x", "must have 12 to 128 characters"),
            (&"\u{fdfa}".repeat(12), "x", "must have 12 to 128 characters"),
        ] {
            assert_eq!(chosen(text, name), Err(detail.to_owned()), "{text}");
        }
        assert_eq!(chosen(&"e\u{301}".repeat(128), "x"), Ok("\u{e9}".repeat(128)));
    }

    #[test]
    fn pending_hash_is_in_force_without_its_mark() {
        let hash = PasswordHash::new("$argon2id$v=19$m=8,t=1,p=1$c2FsdA$aGFzaA".into());
        let pending = hash.pending();
        assert!(pending.is_pending() && !hash.is_pending());
        assert_eq!(pending.pending(), pending);
        assert_eq!((pending.in_force(), hash.in_force()), (hash.clone(), hash));
    }
}
