//! Passkeys: WebAuthn credentials with which users log in without a password.

use async_trait::async_trait;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::identity::{FACTOR_SETTLES_AFTER, MailboxProof};
use crate::kernel::{Check, Invalid, PasskeyId, StoreError, TenantId, Time, UserId};

/// How many passkeys a user may have.
pub const PASSKEYS: usize = 10;

/// How long a ceremony (a registration or a login with a passkey) may take, in seconds.
pub const PASSKEY_CEREMONY_SECONDS: i64 = 300;

/// A passkey of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passkey {
    /// Its id in the API; not the one that the authenticator gave it.
    pub id: PasskeyId,
    /// Whose it is.
    pub user_id: UserId,
    /// What the user calls it.
    pub name: String,
    /// What verifies its signatures.
    pub credential: PasskeyCredential,
    /// When it was registered.
    pub created_at: Time,
    /// When the user last logged in with it.
    pub last_used_at: Option<Time>,
    /// What was proven of a mailbox in the session that registered it, and so is in each session that it begins.
    pub mailbox_proof: Option<MailboxProof>,
}

/// What is known of a credential of an authenticator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PasskeyCredential {
    /// The id that the authenticator gave it: 16 to 1,023 bytes.
    pub credential_id: Vec<u8>,
    /// The public key, as [`PasskeyCeremonies`] writes it.
    pub public_key: Vec<u8>,
    /// The signature counter; 0 for an authenticator that does not count.
    pub sign_count: u32,
    /// Whether it is on one device only.
    pub backup: PasskeyBackup,
    /// How the authenticator is reached, as [`PasskeyCeremonies`] writes it.
    pub transports: u8,
}

/// Whether a credential is on one device only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasskeyBackup {
    /// It stays on its device.
    None,
    /// It may be copied to other devices of the user.
    Eligible,
    /// It has been copied.
    Exists,
}

impl PasskeyBackup {
    /// Returns its name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Eligible => "eligible",
            Self::Exists => "exists",
        }
    }

    /// Returns the backup state with that name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::None, Self::Eligible, Self::Exists]
            .into_iter()
            .find(|one| one.as_str() == text)
    }
}

/// What an authenticator says of its credential with a valid signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasskeyAssertion {
    /// The signature counter.
    pub sign_count: u32,
    /// Whether the credential is on one device only.
    pub backup: PasskeyBackup,
}

/// The signature counter did not grow: there is a copy of the authenticator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature counter of the passkey went from {stored} to {presented}")]
pub struct ClonedPasskey {
    /// The counter of the last login.
    pub stored: u32,
    /// The counter of this one.
    pub presented: u32,
}

impl Passkey {
    /// The length of a name, in characters.
    const NAME: std::ops::RangeInclusive<usize> = 1..=60;

    /// Whether it was registered [`FACTOR_SETTLES_AFTER`] before `at`, or earlier.
    pub fn is_settled(&self, at: Time) -> bool {
        at - self.created_at >= FACTOR_SETTLES_AFTER
    }

    /// Reads a name that a user gives a passkey.
    ///
    /// # Errors
    /// `/name`.
    pub fn read_name(text: &str) -> Result<String, Invalid> {
        let text = text.trim();
        let mut check = Check::new();
        check.line("/name", text, Self::NAME);
        check.verdict()?;
        Ok(text.to_owned())
    }

    /// Notes that the user has logged in with it.
    ///
    /// # Errors
    /// [`ClonedPasskey`] when one of the counters is not zero and the presented one is not greater. Nothing is noted then.
    pub fn note_use(&mut self, assertion: PasskeyAssertion, now: Time) -> Result<(), ClonedPasskey> {
        let (stored, presented) = (self.credential.sign_count, assertion.sign_count);
        let counts = stored != 0 || presented != 0;
        if counts && presented <= stored {
            return Err(ClonedPasskey { stored, presented });
        }
        self.credential.sign_count = presented;
        self.credential.backup = assertion.backup;
        self.last_used_at = Some(now);
        Ok(())
    }
}

/// Who a passkey is registered for.
#[derive(Debug, Clone, Copy)]
pub struct PasskeyOwner<'a> {
    /// The user, in bytes that the authenticator returns at a login.
    pub handle: UserHandle,
    /// The name of the account, which the authenticator shows.
    pub account: &'a str,
    /// The name of the user, which the authenticator shows.
    pub full_name: &'a str,
    /// The name of the tenant, which the authenticator shows.
    pub tenant: &'a str,
}

/// A user of a tenant, in the bytes that authenticators store and return.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserHandle([u8; 32]);

impl UserHandle {
    /// The handle of a user.
    pub fn of(tenant: TenantId, user: UserId) -> Self {
        let mut bytes = [0; 32];
        let (first, last) = bytes.split_at_mut(16);
        first.copy_from_slice(tenant.uuid().as_bytes());
        last.copy_from_slice(user.uuid().as_bytes());
        Self(bytes)
    }

    /// Returns the id of the tenant and that of the user, 16 bytes each.
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// A ceremony that has begun.
#[derive(Debug, Clone, PartialEq)]
pub struct PasskeyCeremony {
    /// The options for the browser: `PublicKeyCredentialCreationOptionsJSON` or `PublicKeyCredentialRequestOptionsJSON` of
    /// WebAuthn. They have a random challenge of 128 bits.
    pub options: Value,
    /// What finishes it: the challenge, the requirements, and the time at which it ends.
    pub state: Vec<u8>,
}

impl PasskeyCeremony {
    /// The SHA-256 under which it is noted that a ceremony with this state was finished.
    pub fn digest(state: &[u8]) -> [u8; 32] {
        Sha256::digest(state).into()
    }
}

/// Why a response of an authenticator is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PasskeyRefusal {
    /// It is not the JSON that WebAuthn describes.
    #[error("{0}")]
    Malformed(String),
    /// It does not answer this ceremony, or its signature is wrong: which of them, in words for the log.
    #[error("{0}")]
    Refused(String),
}

/// The ceremonies of WebAuthn level 2 of one relying party, with user verification required in each.
///
/// A ceremony's challenge and its end (after [`PASSKEY_CEREMONY_SECONDS`]) come from the adapter. Finishing checks type, challenge,
/// origin, the hash of the relying party's id, the flags for presence and verification of the user, and the signature. Whether a
/// ceremony was finished before and whether the counter grew is up to the use case.
pub trait PasskeyCeremonies: Send + Sync {
    /// Begins the registration of a passkey; authenticators that have one of `present` refuse to make another.
    fn start_registration(&self, owner: &PasskeyOwner<'_>, present: &[PasskeyCredential]) -> PasskeyCeremony;

    /// Verifies the response to a registration (`RegistrationResponseJSON`), and returns its credential.
    ///
    /// # Errors
    /// [`PasskeyRefusal`].
    fn finish_registration(&self, state: &[u8], response: &str) -> Result<PasskeyCredential, PasskeyRefusal>;

    /// Begins a login. Its options are the same for everybody but for the challenge: they name no credential.
    fn start_login(&self) -> PasskeyCeremony;

    /// Reads which credential a response to a login (`AuthenticationResponseJSON`) is of, before anything is verified.
    ///
    /// # Errors
    /// [`PasskeyRefusal::Malformed`].
    fn credential_id(&self, response: &str) -> Result<Vec<u8>, PasskeyRefusal>;

    /// Verifies the response to a login with the credential of a user. Without one it takes the same time, and is refused.
    ///
    /// # Errors
    /// [`PasskeyRefusal`].
    fn finish_login(
        &self,
        state: &[u8],
        response: &str,
        known: Option<(UserHandle, &PasskeyCredential)>,
    ) -> Result<PasskeyAssertion, PasskeyRefusal>;
}

/// The passkeys of the tenant's users, and which ceremonies were finished lately.
#[async_trait]
pub trait Passkeys: Send {
    /// The passkeys of a user, oldest first.
    async fn list(&mut self, user: UserId) -> Result<Vec<Passkey>, StoreError>;
    /// The passkey with the id that an authenticator gave it.
    async fn find_by_credential(&mut self, credential_id: &[u8]) -> Result<Option<Passkey>, StoreError>;
    /// A passkey, locked until the transaction ends.
    async fn find_for_update(&mut self, id: PasskeyId) -> Result<Option<Passkey>, StoreError>;
    /// Adds a passkey.
    async fn insert(&mut self, passkey: &Passkey) -> Result<(), StoreError>;
    /// Stores the name, the counter, the backup state and the last use of a passkey.
    async fn update(&mut self, passkey: &Passkey) -> Result<(), StoreError>;
    /// Removes a passkey.
    async fn delete(&mut self, id: PasskeyId) -> Result<(), StoreError>;
    /// Removes all passkeys of a user; how many there were.
    async fn delete_all(&mut self, user: UserId) -> Result<u64, StoreError>;
    /// Notes that a user has finished a ceremony, until it would have ended; false when it was finished before. The user is
    /// locked.
    async fn finish(
        &mut self,
        user: UserId,
        digest: [u8; 32],
        now: Time,
        ends_at: Time,
    ) -> Result<bool, StoreError>;
    /// Deletes what is noted of ceremonies that ended before then; how many there were.
    async fn delete_ended(&mut self, before: Time) -> Result<u64, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    fn passkey(sign_count: u32) -> Passkey {
        let id = uuid::Uuid::from_u128(1);
        Passkey {
            id: id.into(),
            user_id: id.into(),
            name: "Laptop".into(),
            credential: PasskeyCredential {
                credential_id: vec![1; 16],
                public_key: Vec::new(),
                sign_count,
                backup: PasskeyBackup::Eligible,
                transports: 0,
            },
            created_at: DateTime::UNIX_EPOCH,
            last_used_at: None,
            mailbox_proof: None,
        }
    }

    #[test]
    fn counter_that_does_not_grow_is_an_alarm() {
        for (stored, presented, accepted) in [
            (0, 0, true),
            (0, 1, true),
            (1, 2, true),
            (1, u32::MAX, true),
            (1, 1, false),
            (2, 1, false),
            (2, 0, false),
            (u32::MAX, 0, false),
        ] {
            let mut passkey = passkey(stored);
            let before = passkey.clone();
            let assertion = PasskeyAssertion {
                sign_count: presented,
                backup: PasskeyBackup::Exists,
            };
            let noted = passkey.note_use(assertion, DateTime::UNIX_EPOCH);
            assert_eq!(noted.is_ok(), accepted, "{stored} {presented}");
            if accepted {
                assert_eq!(passkey.credential.sign_count, presented);
                assert_eq!(passkey.credential.backup, PasskeyBackup::Exists);
            } else {
                assert_eq!(passkey, before);
            }
        }
    }

    #[test]
    fn names_are_lines_of_up_to_60_characters() {
        assert_eq!(Passkey::read_name("  My phone "), Ok("My phone".into()));
        for wrong in ["", "  ", "a\nb", "a\0b", &"a".repeat(61)] {
            assert!(Passkey::read_name(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn handles_differ_by_tenant_and_user() {
        let id = |number| uuid::Uuid::from_u128(number);
        let of = |tenant: u128, user: u128| UserHandle::of(id(tenant).into(), id(user).into());
        assert_eq!(of(1, 2), of(1, 2));
        assert_ne!(of(1, 2), of(2, 1));
        assert_ne!(of(1, 2), of(2, 2));
    }
}
