use async_trait::async_trait;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::identity::{PasswordHash, RoleName};
use crate::kernel::{Check, Invalid, Page, PageRequest, Patch, Position, Role, StoreError, Time, UserId};

/// An e-mail address, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct Email(String);

impl Email {
    /// An address: `local@domain`, at most 254 characters (RFC 5321 section 4.5.3.1), ASCII without spaces, a
    /// domain of at least two labels. Whether it exists only a mail can tell.
    ///
    /// # Errors
    /// `invalid_email` at `pointer`.
    pub fn parse(text: &str, pointer: &str) -> Result<Self, Invalid> {
        let invalid = || {
            Invalid::one(
                pointer,
                "invalid_email",
                "must be an e-mail address such as ada@example.com",
            )
        };
        let text = text.trim();
        let (local, domain) = text.rsplit_once('@').ok_or_else(invalid)?;
        let plain = |c: char| {
            c.is_ascii_graphic()
                && !matches!(
                    c,
                    '@' | '"' | '(' | ')' | ',' | ':' | ';' | '<' | '>' | '[' | ']' | '\\'
                )
        };
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
                && !l.starts_with('-')
                && !l.ends_with('-')
        };
        let dots = !local.starts_with('.') && !local.ends_with('.') && !local.contains("..");
        let holds = text.len() <= 254
            && (1..=64).contains(&local.len())
            && local.chars().all(plain)
            && dots
            && domain.contains('.')
            && domain.split('.').all(label);
        if holds {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(invalid())
        }
    }

    /// An address that was accepted before and kept by the database.
    pub fn stored(text: String) -> Self {
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The SHA-256 of the text.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}

/// A person in a tenant. Serialised (for the audit log) without the password hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User {
    /// Identifies the user within the tenant.
    pub id: UserId,
    /// Unique among the tenant's live users.
    pub email: Email,
    /// 1 to 120 characters.
    pub full_name: String,
    /// What they may do.
    pub role: Role,
    /// What narrows the role, if something does: see [`CustomRole`](crate::identity::CustomRole).
    pub custom_role: Option<RoleName>,
    /// Whether they may log in.
    pub is_active: bool,
    /// Whether the address has been proven.
    pub email_verified: bool,
    /// What is known of who reads the mailbox of the address.
    #[serde(skip)]
    pub mailbox: MailboxStanding,
    /// The password as a PHC string, which may be [pending](PasswordHash::pending); never the password.
    #[serde(skip)]
    pub password_hash: PasswordHash,
    /// When the password expires, if it is a first one: the server generated it, or somebody else chose it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_expires_at: Option<Time>,
    /// The hash of the first password, once the user has chosen another one: it must not come back.
    #[serde(skip)]
    pub first_password_hash: Option<PasswordHash>,
    /// When they were added.
    pub created_at: Time,
    /// When they were last changed.
    pub updated_at: Time,
    /// When they were removed, if they were.
    pub deleted_at: Option<Time>,
    /// Counts the changes, from 1.
    pub version: i64,
}

/// What is known of who reads the mailbox of a user's address. Only a [`User`] changes it, by what happens to the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxStanding {
    since: Time,
    proven_at: Option<Time>,
    self_registered: bool,
    switch_since: Option<Time>,
}

impl MailboxStanding {
    /// The one of an account that gets its address now.
    const fn new(now: Time) -> Self {
        Self {
            since: now,
            proven_at: None,
            self_registered: false,
            switch_since: None,
        }
    }

    /// The one that the database stores; the arguments are the values of the methods of these names.
    pub const fn stored(
        since: Time,
        proven_at: Option<Time>,
        self_registered: bool,
        switch_since: Option<Time>,
    ) -> Self {
        Self {
            since,
            proven_at,
            self_registered,
            switch_since,
        }
    }

    /// Since when the account has the address.
    pub const fn since(&self) -> Time {
        self.since
    }

    /// When the password was last chosen through a link that was mailed to the address, if it was. A password that an admin
    /// or a stranger chose proves no mailbox, though the address is verified.
    pub const fn proven_at(&self) -> Option<Time> {
        self.proven_at
    }

    /// Whether the user registered, and neither the user nor the reader of the mailbox has shown whose account it is since. That an
    /// admin gave the account another address shows nothing of who chose the password.
    pub const fn self_registered(&self) -> bool {
        self.self_registered
    }

    /// When something last ended all access to the account: proofs of other tenants from before that do not open it.
    pub const fn switch_since(&self) -> Option<Time> {
        self.switch_since
    }
}

/// Proof that the holder of a session reads the mailbox of an address: the session began with a password that was chosen through
/// a link which was mailed there. It is worth something in other tenants, too, whose admins have no part in it.
///
/// It names the address, so that it proves nothing of the next one that an admin gives the account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxProof {
    /// The address.
    pub email: Email,
    /// When the password was chosen.
    pub at: Time,
}

impl MailboxProof {
    /// Whether it shows that its holder is the person of an account: the account has the address, verified, and neither got it nor
    /// was proven anew later. A mailbox may change hands, and its former holder must not get into an account of the present
    /// one.
    pub fn is_of(&self, user: &User) -> bool {
        let mailbox = &user.mailbox;
        let since = mailbox
            .proven_at
            .map_or(mailbox.since, |at| at.max(mailbox.since));
        user.email_verified && self.email == user.email && self.at >= since
    }

    /// Whether it opens an account in another tenant than the one it was given in: it [is of](MailboxProof::is_of) the account, and
    /// nothing has ended all access to the account since. Whoever ends the sessions of an account means those, too, that a proof
    /// could begin.
    pub fn opens(&self, user: &User) -> bool {
        self.is_of(user) && user.mailbox.switch_since.is_none_or(|since| self.at >= since)
    }
}

/// What takes the place of the password at a login of a caller who comes from another tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailboxEntry {
    /// What the session there proves.
    pub proof: MailboxProof,
    /// When the session there ends at the latest, and with it the one that begins here: otherwise a chain of sessions would outlive
    /// the login that it began with.
    pub ends_at: Time,
}

/// Who is to be added.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// See [`User::email`].
    pub email: Email,
    /// See [`User::full_name`].
    pub full_name: String,
    /// See [`User::role`].
    pub role: Role,
}

/// What may be changed of a user.
#[derive(Debug, Clone, Default)]
pub struct UserPatch {
    /// See [`User::email`]; a new address is unproven.
    pub email: Patch<String>,
    /// See [`User::full_name`].
    pub full_name: Patch<String>,
    /// See [`User::role`]; admins only.
    pub role: Patch<Role>,
    /// See [`User::custom_role`]; admins only.
    pub custom_role: Patch<String>,
    /// See [`User::is_active`]; admins only.
    pub is_active: Patch<bool>,
}

/// Which users a list is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserFilter {
    /// Only this role.
    pub role: Option<Role>,
    /// Only active or only inactive ones.
    pub is_active: Option<bool>,
    /// Only those without a custom role, or with this one.
    pub custom_role: Option<RoleFilter>,
}

/// Which custom role the users of a list have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleFilter {
    /// No custom role.
    None,
    /// The one of that name.
    Named(RoleName),
}

impl User {
    /// A new active user.
    ///
    /// # Errors
    /// `/full_name` when it does not hold.
    pub fn new(id: UserId, data: NewUser, password_hash: PasswordHash, now: Time) -> Result<Self, Invalid> {
        let mut check = Check::new();
        let full_name = data.full_name.trim().to_owned();
        check.line("/full_name", &full_name, 1..=120);
        check.verdict()?;
        Ok(Self {
            id,
            email: data.email,
            full_name,
            role: data.role,
            custom_role: None,
            is_active: true,
            email_verified: false,
            mailbox: MailboxStanding::new(now),
            password_hash,
            password_expires_at: None,
            first_password_hash: None,
            created_at: now,
            updated_at: now,
            deleted_at: None,
            version: 1,
        })
    }

    /// Applies a change, all of it or nothing.
    ///
    /// # Errors
    /// Every field that does not hold.
    pub fn apply(&mut self, patch: UserPatch, now: Time) -> Result<(), Invalid> {
        let mut check = Check::new();
        let mut next = self.clone();
        check.not_null("/email", &patch.email);
        check.not_null("/full_name", &patch.full_name);
        check.not_null("/role", &patch.role);
        check.not_null("/is_active", &patch.is_active);
        if let Patch::Set(text) = &patch.email
            && let Some(email) = check.take(Email::parse(text, "/email"))
            && email != next.email
        {
            next.take_address(email, now);
            next.email_verified = false;
        }
        patch
            .full_name
            .map(|name| name.trim().to_owned())
            .apply_required(&mut next.full_name);
        check.line("/full_name", &next.full_name, 1..=120);
        patch.role.apply_required(&mut next.role);
        match patch.custom_role {
            Patch::Keep => {}
            Patch::Clear => next.custom_role = None,
            Patch::Set(name) => next.custom_role = check.take(RoleName::of_user(&name)),
        }
        patch.is_active.apply_required(&mut next.is_active);
        if self.is_active && !next.is_active {
            next.end_access(now);
        }
        check.verdict()?;
        next.touch(now);
        *self = next;
        Ok(())
    }

    /// Replaces the password by one that its user has chosen, which does not expire. The hash of a first password is kept.
    pub fn set_password(&mut self, hash: PasswordHash, now: Time) {
        if self.password_expires_at.take().is_some() {
            self.first_password_hash = Some(self.password_hash.in_force());
        }
        self.password_hash = hash;
        self.touch(now);
    }

    /// Notes that the password is a first one, which works until that time.
    pub const fn expire_password(&mut self, at: Time) {
        self.password_expires_at = Some(at);
    }

    /// The hashes of passwords that the account had first: the present one, if it is one, and a replaced one.
    pub fn first_passwords(&self) -> impl Iterator<Item = PasswordHash> {
        let present = self.password_expires_at.map(|_| self.password_hash.in_force());
        present.into_iter().chain(self.first_password_hash.clone())
    }

    /// Whether the password is a first one that has expired.
    pub fn has_expired_password(&self, now: Time) -> bool {
        self.password_expires_at.is_some_and(|at| now >= at)
    }

    /// Notes that the address was proven, and puts a pending password in force.
    pub fn verify_email(&mut self, now: Time) {
        if !self.email_verified {
            self.email_verified = true;
            self.mailbox.self_registered = false;
            self.password_hash = self.password_hash.in_force();
            self.touch(now);
        }
    }

    /// Notes that the user registered: nobody but the user has named the address and the password.
    pub const fn note_registration(&mut self) {
        self.mailbox.self_registered = true;
    }

    /// Notes that the password was chosen through a link that was mailed to the address at a time.
    pub const fn prove_mailbox(&mut self, at: Time) {
        self.mailbox.proven_at = Some(at);
    }

    /// Notes that the account was made for the holder of a proof, which opens it from then on.
    pub const fn enter_with(&mut self, proof: &MailboxProof) {
        self.mailbox.since = proof.at;
    }

    /// Notes that all access to the account ends now, that by proofs of other tenants included. It is no change that anybody sees.
    pub const fn end_access(&mut self, now: Time) {
        self.mailbox.switch_since = Some(now);
    }

    /// What a session that begins with the password proves of the mailbox.
    pub fn mailbox_proof(&self) -> Option<MailboxProof> {
        let proof = |at| MailboxProof {
            email: self.email.clone(),
            at,
        };
        self.mailbox.proven_at.map(proof)
    }

    /// Whether the user registered where an address has to be proven first, and has not proven it.
    pub fn awaits_proof(&self) -> bool {
        !self.email_verified && self.password_hash.is_pending()
    }

    /// Whether the account may have been registered by a stranger under the address of somebody else. The password of a
    /// registration is a stranger's also when an admin has named another address since.
    pub fn may_be_a_strangers(&self) -> bool {
        self.awaits_proof() || (self.mailbox.self_registered && !self.email_verified)
    }

    /// Takes over an address that was proven.
    pub fn move_to(&mut self, email: Email, now: Time) {
        self.take_address(email, now);
        self.email_verified = true;
        self.mailbox.self_registered = false;
        self.password_hash = self.password_hash.in_force();
        self.touch(now);
    }

    /// Removes the user; their row stays for those who refer to it.
    pub fn remove(&mut self, now: Time) {
        self.is_active = false;
        self.custom_role = None;
        self.deleted_at = Some(now);
        self.touch(now);
    }

    /// Whether the user counts as one of the tenant's admins: one with a custom role does not, nor does one who cannot log in.
    pub fn is_acting_admin(&self) -> bool {
        let is_there = self.is_active && self.deleted_at.is_none() && !self.awaits_proof();
        self.role == Role::Admin && self.custom_role.is_none() && is_there
    }

    /// Where the user is in a list.
    pub fn position(&self) -> Position {
        Position {
            created_at: self.created_at,
            id: self.id.uuid(),
        }
    }

    fn take_address(&mut self, email: Email, now: Time) {
        self.email = email;
        self.mailbox.since = now;
        self.mailbox.proven_at = None;
    }

    fn touch(&mut self, now: Time) {
        self.updated_at = now;
        self.version += 1;
    }
}

/// Users of the scope's tenant; removed ones are not seen.
#[async_trait]
pub trait Users: Send {
    /// A user.
    async fn find(&mut self, id: UserId) -> Result<Option<User>, StoreError>;

    /// A user of a tenant that was deleted at that time, as they were then: removed users are not among them.
    async fn find_as_of_deletion(&mut self, id: UserId, deleted: Time) -> Result<Option<User>, StoreError>;
    /// A user, locked until the transaction ends.
    async fn find_for_update(&mut self, id: UserId) -> Result<Option<User>, StoreError>;
    /// The user with that address.
    async fn find_by_email(&mut self, email: &Email) -> Result<Option<User>, StoreError>;
    /// A page of users.
    async fn list(&mut self, filter: &UserFilter, page: PageRequest) -> Result<Page<User>, StoreError>;
    /// How many there are that are not deleted, without registrations that [wait for proof](User::awaits_proof).
    async fn count(&mut self) -> Result<u64, StoreError>;
    /// How many of these are active: those take a seat.
    async fn count_active(&mut self) -> Result<u64, StoreError>;
    /// How many there are with that custom role. Only meaningful while the tenant is locked.
    async fn count_with_role(&mut self, name: &RoleName) -> Result<u64, StoreError>;
    /// How many [acting admins](User::is_acting_admin) there are besides this user. Only meaningful while the tenant is locked.
    async fn count_other_admins(&mut self, besides: UserId) -> Result<u64, StoreError>;
    /// A page of the [acting admins](User::is_acting_admin).
    async fn list_acting_admins(&mut self, page: PageRequest) -> Result<Page<User>, StoreError>;
    /// Active registrations that [wait for proof](User::awaits_proof) and were last changed before then, oldest first, at most `limit`.
    async fn list_unproven(&mut self, before: Time, limit: usize) -> Result<Vec<User>, StoreError>;
    /// Registrations that were removed while they waited for proof, at most `limit`.
    async fn list_removed_unproven(&mut self, limit: usize) -> Result<Vec<User>, StoreError>;
    /// Active users whose [first password](User::password_expires_at) expires after the one time and until the other, the soonest first, at
    /// most `limit`.
    async fn list_expiring(
        &mut self,
        after: Time,
        until: Time,
        limit: usize,
    ) -> Result<Vec<User>, StoreError>;
    /// How many active registrations [wait for proof](User::awaits_proof). Those that an admin deactivated stay.
    async fn count_unproven(&mut self) -> Result<u64, StoreError>;
    /// Adds a user.
    async fn insert(&mut self, user: &User) -> Result<(), StoreError>;
    /// Stores a user's new state.
    async fn update(&mut self, user: &User) -> Result<(), StoreError>;
    /// Deletes the row of a user who was removed. It fails where other rows refer to the user.
    async fn delete(&mut self, id: UserId) -> Result<(), StoreError>;
}

#[cfg(test)]
mod tests {
    use chrono::Duration;
    use uuid::Uuid;

    use super::*;

    fn at(minute: i64) -> Time {
        let start: Time = "2026-01-15T12:00:00Z".parse().unwrap();
        start + Duration::minutes(minute)
    }

    /// A user whose account got its address at minute 10.
    fn user() -> User {
        let new = NewUser {
            email: Email::parse("ada@example.com", "").unwrap(),
            full_name: "Ada".into(),
            role: Role::Member,
        };
        let hash = PasswordHash::new("$argon2id$".into());
        let mut user = User::new(Uuid::from_u128(1).into(), new, hash, at(10)).unwrap();
        user.verify_email(at(11));
        user
    }

    fn proof(email: &str, minute: i64) -> MailboxProof {
        MailboxProof {
            email: Email::parse(email, "").unwrap(),
            at: at(minute),
        }
    }

    #[test]
    fn proof_holds_for_accounts_that_are_no_younger() {
        let ada = "ada@example.com";
        assert!(proof(ada, 10).is_of(&user()));
        assert!(!proof(ada, 9).is_of(&user()));
        assert!(!proof("bob@example.com", 20).is_of(&user()));
        let mut proven = user();
        proven.prove_mailbox(at(30));
        assert!(!proof(ada, 29).is_of(&proven));
        assert!(proof(ada, 30).is_of(&proven));
        let mut ended = user();
        ended.end_access(at(30));
        assert!(proof(ada, 29).is_of(&ended) && !proof(ada, 29).opens(&ended));
        assert!(proof(ada, 30).opens(&ended) && !proof("bob@example.com", 30).opens(&ended));
        let mut unverified = user();
        unverified.email_verified = false;
        assert!(!proof(ada, 20).is_of(&unverified));
    }

    #[test]
    fn first_password_expires_until_another_is_chosen() {
        let mut user = user();
        assert!(!user.has_expired_password(at(1_000_000)));
        user.expire_password(at(60));
        assert!(!user.has_expired_password(at(59)) && user.has_expired_password(at(60)));
        user.set_password(PasswordHash::new("$argon2id$2".into()), at(61));
        assert!(!user.has_expired_password(at(1_000_000)));
    }

    #[test]
    fn first_password_is_kept_through_later_changes() {
        let firsts = |user: &User| -> Vec<String> {
            let hashes = user.first_passwords();
            hashes.map(|hash| hash.as_str().to_owned()).collect()
        };
        let mut user = user();
        let first = user.password_hash.as_str().to_owned();
        assert_eq!(firsts(&user), Vec::<String>::new(), "the user has chosen it");
        user.expire_password(at(60));
        assert_eq!(firsts(&user), std::slice::from_ref(&first));
        for (next, minute) in [("$argon2id$2", 61), ("$argon2id$3", 62)] {
            user.set_password(PasswordHash::new(next.into()), at(minute));
            assert_eq!(firsts(&user), std::slice::from_ref(&first));
        }
    }

    #[test]
    fn another_address_takes_the_proof_away() {
        let mut user = user();
        user.prove_mailbox(at(30));
        let own = user.mailbox_proof().unwrap();
        assert!(own.is_of(&user));
        let address = |text: &str| UserPatch {
            email: Patch::Set(text.into()),
            ..UserPatch::default()
        };
        user.apply(address("eve@example.com"), at(40)).unwrap();
        assert_eq!(user.mailbox_proof(), None);
        assert!(!own.is_of(&user));
        // Not even with the address given back.
        user.apply(address("ada@example.com"), at(50)).unwrap();
        user.verify_email(at(51));
        assert_eq!(user.mailbox_proof(), None);
        assert!(!own.is_of(&user));
        user.prove_mailbox(at(60));
        user.move_to(Email::parse("bob@example.com", "").unwrap(), at(70));
        assert_eq!((user.mailbox_proof(), user.mailbox.since()), (None, at(70)));
    }
}
