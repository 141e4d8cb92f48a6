use async_trait::async_trait;

use crate::identity::{Email, MailboxProof};
use crate::kernel::{Page, PageRequest, Position, SessionId, StoreError, TenantId, Time, UserId};

/// The most addresses that are read of the logins of one account.
pub const LOGIN_ADDRESSES: u64 = 1_000;

/// How the user of a session has authenticated in it: a set of methods, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthMethods(u8);

impl AuthMethods {
    /// The password; also of a session that begins with a registration or an invitation, which sets one.
    pub const PASSWORD: Self = Self(1);
    /// A code of an app, or a recovery code.
    pub const CODE: Self = Self(2);
    /// A passkey that stays on its device.
    pub const DEVICE_PASSKEY: Self = Self(4);
    /// A passkey that may be on several devices.
    pub const SYNCED_PASSKEY: Self = Self(8);
    /// A session in another tenant whose holder proved to read the mailbox of the account. RFC 8176 has no name for it.
    pub const OTHER_WORKSPACE: Self = Self(16);

    /// The methods with their names of RFC 8176: the key of a passkey is in hardware as long as it cannot leave its device.
    const NAMES: [(Self, &'static str); 4] = [
        (Self::PASSWORD, "pwd"),
        (Self::CODE, "otp"),
        (Self::DEVICE_PASSKEY, "hwk"),
        (Self::SYNCED_PASSKEY, "swk"),
    ];

    /// Returns the union of both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the user gave a password or used a passkey to begin the session.
    pub const fn has_login(self) -> bool {
        self.0 & Self::OTHER_WORKSPACE.0 == 0
    }

    /// Returns the set as bits, which [`AuthMethods::of_bits`] reads.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Returns the set with these bits; `None` when it is empty or has unknown ones.
    pub fn of_bits(bits: u8) -> Option<Self> {
        matches!(bits, 1..=31).then_some(Self(bits))
    }

    /// Returns the names of RFC 8176. Authenticators verify that the user of a passkey is there, so such a set has `user`, too.
    pub fn names(self) -> Vec<&'static str> {
        let is_in = |(method, _): &&(Self, &str)| self.0 & method.0 != 0;
        let mut names: Vec<_> = Self::NAMES.iter().filter(is_in).map(|(_, name)| *name).collect();
        if self.0 & (Self::DEVICE_PASSKEY.0 | Self::SYNCED_PASSKEY.0) != 0 {
            names.push("user");
        }
        names
    }

    /// Returns the methods among these names; `None` when there is none.
    pub fn of_names(names: &[String]) -> Option<Self> {
        let named = Self::NAMES
            .iter()
            .filter(|(_, name)| names.iter().any(|one| one == name));
        Self::of_bits(named.fold(0, |bits, (method, _)| bits | method.0))
    }
}

/// A login session and the family of its refresh tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id, `sid` in access tokens.
    pub id: SessionId,
    /// Whose it is.
    pub user_id: UserId,
    /// SHA-256 of the refresh token that is valid now.
    pub token_hash: [u8; 32],
    /// SHA-256 of the one before it.
    pub previous_hash: Option<[u8; 32]>,
    /// When the token was last rotated.
    pub rotated_at: Option<Time>,
    /// When the session began.
    pub created_at: Time,
    /// When its refresh token dies of age.
    pub expires_at: Time,
    /// When it was ended, if it was.
    pub revoked_at: Option<Time>,
    /// The caller's `User-Agent` at login, shortened.
    pub user_agent: Option<String>,
    /// The caller's address at login.
    pub ip: Option<String>,
    /// When a second factor was last given in it.
    pub factor_at: Option<Time>,
    /// The hash of the token of the trusted device that its login came from.
    pub device_hash: Option<[u8; 32]>,
    /// How the user has authenticated in it.
    pub methods: AuthMethods,
    /// What its holder has proven of a mailbox.
    pub mailbox_proof: Option<MailboxProof>,
    /// When it ends however often it is refreshed, where that is earlier than its own login says: see [`MailboxEntry`].
    ///
    /// [`MailboxEntry`]: crate::identity::MailboxEntry
    pub ends_at: Option<Time>,
}

/// How long sessions live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLifetime {
    /// Without a refresh.
    pub unused: chrono::Duration,
    /// From the login, however often a session is refreshed.
    pub longest: chrono::Duration,
}

impl SessionLifetime {
    /// When the refresh token expires of a session that began at `began_at` and is refreshed now.
    pub fn expiry(self, began_at: Time, now: Time) -> Time {
        (now + self.unused).min(began_at + self.longest)
    }
}

/// What presenting a refresh token leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotation {
    /// It was the current one; the child is now.
    Rotated,
    /// It was rotated moments ago (two tabs, a lost answer): the same child again.
    Repeated,
    /// It had been used up: somebody else holds the family. The session is now revoked.
    Reused,
    /// The session has ended.
    Ended,
}

impl Session {
    /// Notes that the user gave a second factor in this way.
    pub fn note_factor(&mut self, method: AuthMethods, now: Time) {
        self.factor_at = Some(now);
        self.methods = self.methods.and(method);
    }

    /// When the session began with a password or a passkey; `None` when it began in another way.
    pub fn login_at(&self) -> Option<Time> {
        self.methods.has_login().then_some(self.created_at)
    }

    /// When the second factor of the login was given. A first factor that its user added later is in the session too, and is none of it:
    /// it says nothing of who has another token of the session.
    pub fn login_factor_at(&self) -> Option<Time> {
        // One request begins the session and notes the factor, some moments later.
        let of_login = |at: &Time| *at - self.created_at < chrono::Duration::seconds(5);
        self.factor_at.filter(of_login)
    }

    /// The session as tokens that are refreshed show it: with the factor of the login alone. A first factor that was added later still
    /// counts in the session, but a token that shows it would say that its holder gave the factor, and the refresh token may be a thief's.
    #[must_use]
    pub fn as_refreshed(self) -> Self {
        Self {
            factor_at: self.login_factor_at(),
            ..self
        }
    }

    /// For how long a used-up token still gets its child again, in seconds. After Supabase Auth's reuse interval:
    /// long enough for a retry over a bad line, too short for a thief.
    pub const REUSE_GRACE_SECONDS: i64 = 10;

    /// Whether the session still stands.
    pub fn is_live(&self, now: Time) -> bool {
        self.revoked_at.is_none() && now < self.expires_at
    }

    /// When the session was last used, as far as is stored: its login or its last refresh. Requests with an access token
    /// are not stored.
    pub fn last_used_at(&self) -> Time {
        self.rotated_at.unwrap_or(self.created_at)
    }

    /// Whether the session was not used for longer than `timeout`.
    pub fn is_idle(&self, now: Time, timeout: chrono::Duration) -> bool {
        now - self.last_used_at() > timeout
    }

    /// When the session ends at the latest, however often it is refreshed.
    pub fn latest_end(&self, lifetime: SessionLifetime) -> Time {
        let own = self.created_at + lifetime.longest;
        self.ends_at.map_or(own, |ends_at| ends_at.min(own))
    }

    /// Whether the session began longer ago than sessions live.
    pub fn is_outlived(&self, now: Time, lifetime: SessionLifetime) -> bool {
        now >= self.latest_end(lifetime)
    }

    /// Where the session is in a list.
    pub fn position(&self) -> Position {
        Position {
            created_at: self.created_at,
            id: self.id.uuid(),
        }
    }

    /// Presents a refresh token (by its hash) of this session; `child` is the hash of the token that follows it.
    pub fn rotate(
        &mut self,
        presented: [u8; 32],
        child: [u8; 32],
        now: Time,
        lifetime: SessionLifetime,
    ) -> Rotation {
        if !self.is_live(now) || self.is_outlived(now, lifetime) {
            return Rotation::Ended;
        }
        if presented == self.token_hash {
            self.previous_hash = Some(presented);
            self.token_hash = child;
            self.rotated_at = Some(now);
            self.expires_at = (now + lifetime.unused).min(self.latest_end(lifetime));
            return Rotation::Rotated;
        }
        let grace = chrono::Duration::seconds(Self::REUSE_GRACE_SECONDS);
        let in_grace = self.rotated_at.is_some_and(|at| (now - at).abs() <= grace);
        if self.previous_hash == Some(presented) && child == self.token_hash && in_grace {
            return Rotation::Repeated;
        }
        self.revoked_at = Some(now);
        Rotation::Reused
    }
}

/// A refresh token for handing out, once.
#[derive(Clone, PartialEq, Eq)]
pub struct IssuedRefresh {
    /// The opaque token.
    pub token: String,
    /// Its SHA-256, which is what is stored.
    pub hash: [u8; 32],
}

impl std::fmt::Debug for IssuedRefresh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IssuedRefresh(…)")
    }
}

/// A refresh token that came back and is one of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresentedRefresh {
    /// The tenant it belongs to.
    pub tenant: TenantId,
    /// The session it belongs to.
    pub session: SessionId,
    /// Its SHA-256.
    pub hash: [u8; 32],
    /// The token that follows it.
    pub child: IssuedRefresh,
}

/// Makes and recognises refresh tokens.
///
/// A token is authentic or it is not, without a look into the database: so presenting rubbish can never revoke
/// somebody's session. Its child is derived from it, so that a repeated request gets the same answer.
pub trait RefreshTokens: Send + Sync {
    /// The first token of a session.
    fn first(&self, tenant: TenantId, session: SessionId) -> IssuedRefresh;

    /// What a token says; `None` when it is not one of ours.
    fn read(&self, token: &str) -> Option<PresentedRefresh>;
}

/// Which sessions that have not ended are live: those that have not expired and were used recently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveAt {
    /// The present time.
    pub now: Time,
    /// A session whose last use is before this time is idle.
    pub used_since: Time,
}

/// Login sessions of the scope's tenant.
#[async_trait]
pub trait Sessions: Send {
    /// A session.
    async fn find(&mut self, id: SessionId) -> Result<Option<Session>, StoreError>;
    /// A session, locked until the transaction ends.
    async fn find_for_update(&mut self, id: SessionId) -> Result<Option<Session>, StoreError>;
    /// Adds a session.
    async fn insert(&mut self, session: &Session) -> Result<(), StoreError>;
    /// Stores a session's new state.
    async fn update(&mut self, session: &Session) -> Result<(), StoreError>;
    /// A page of a user's live sessions, newest first.
    async fn list_live(
        &mut self,
        user: UserId,
        at: LiveAt,
        page: PageRequest,
    ) -> Result<Page<Session>, StoreError>;
    /// Ends every session of a user but the `keep` newest live ones, and returns how many of the ended were live. Only
    /// meaningful while the user is locked.
    async fn end_surplus(&mut self, user: UserId, at: LiveAt, keep: u32) -> Result<u64, StoreError>;
    /// Ends all live sessions of a user; how many there were.
    async fn revoke_all(&mut self, user: UserId, at: Time) -> Result<u64, StoreError>;
    /// Ends all live sessions of a user but one; how many there were.
    async fn revoke_others(&mut self, user: UserId, kept: SessionId, at: Time) -> Result<u64, StoreError>;
    /// Returns the addresses from which the user with that mail address has logged in since then, each once and at most
    /// [`LOGIN_ADDRESSES`] of them; `None` for a login without an address.
    async fn login_addresses(
        &mut self,
        email: &Email,
        since: Time,
    ) -> Result<Vec<Option<String>>, StoreError>;
    /// Deletes the sessions that ended before then; how many there were.
    async fn delete_ended(&mut self, before: Time) -> Result<u64, StoreError>;
}
