use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;
use serde_json::Value;

use crate::events::TenantEvent;
use crate::flags::FlagEditing;
use crate::identity::{Email, Lockouts, PasswordHash, SigningKeyEditing, TokenError};
use crate::kernel::{
    Check, Invalid, OperatorId, Page, PageRequest, RequestId, StoreError, SystemJobId, SystemScope, TenantId,
    Time,
};
use crate::operations::{
    JobState, OperatorEvent, OperatorEventFilter, OperatorFactors, OperatorPermission, OperatorRole,
    PlatformRows, PlatformSupportAccesses, RecordedOperatorEvent, SystemJob,
};
use crate::tenant::{Denied, Tenant, TenantFilter};

/// Somebody who runs the platform. An operator is no user of any tenant. Serialised without the password hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Operator {
    /// Identifies the operator across the platform.
    pub id: OperatorId,
    /// Unique among all operators.
    pub email: Email,
    /// 1 to 120 characters.
    pub full_name: String,
    /// What the operator may do.
    pub role: OperatorRole,
    /// Whether they may log in, and their tokens count.
    pub is_active: bool,
    /// What the password hasher returned; the password itself is never stored.
    #[serde(skip)]
    pub password_hash: PasswordHash,
    /// When the password expires, which the operator did not choose; `None` for a password that the operator chose.
    pub password_expires_at: Option<Time>,
    /// Counts how often all tokens of the operator were ended; a token of another count is refused.
    pub epoch: i64,
    /// When a login with a second factor was last finished: logins that began before then no longer wait for theirs.
    #[serde(skip)]
    pub factor_at: Option<Time>,
    /// When they were added.
    pub created_at: Time,
    /// When they were last changed.
    pub updated_at: Time,
    /// Incremented with every change of the account; the `ETag`.
    pub version: i64,
}

/// Changes of an operator's account; `None` keeps the field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OperatorChanges {
    /// See [`Operator::full_name`].
    pub full_name: Option<String>,
    /// See [`Operator::role`].
    pub role: Option<OperatorRole>,
    /// See [`Operator::is_active`].
    pub is_active: Option<bool>,
}

impl Operator {
    /// A new operator.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn new(
        id: OperatorId,
        email: Email,
        full_name: &str,
        role: OperatorRole,
        password_hash: PasswordHash,
        now: Time,
    ) -> Result<Self, Invalid> {
        Ok(Self {
            id,
            email,
            full_name: checked_name(full_name)?,
            role,
            is_active: true,
            password_hash,
            password_expires_at: None,
            epoch: 0,
            factor_at: None,
            created_at: now,
            updated_at: now,
            version: 1,
        })
    }

    /// The operator with the changes. A deactivation ends all tokens.
    ///
    /// # Errors
    /// What is wrong with the name.
    pub fn changed(&self, changes: &OperatorChanges, now: Time) -> Result<Self, Invalid> {
        let mut after = self.clone();
        if let Some(name) = &changes.full_name {
            after.full_name = checked_name(name)?;
        }
        after.role = changes.role.unwrap_or(self.role);
        after.is_active = changes.is_active.unwrap_or(self.is_active);
        if after.is_active != self.is_active {
            after.epoch += 1;
        }
        if after != *self {
            after.updated_at = now;
            after.version += 1;
        }
        Ok(after)
    }

    /// Sets another password, and when it expires if the operator did not choose it. Ends all tokens.
    pub fn set_password(&mut self, hash: PasswordHash, expires_at: Option<Time>, now: Time) {
        self.password_hash = hash;
        self.password_expires_at = expires_at;
        self.epoch += 1;
        self.updated_at = now;
        self.version += 1;
    }

    /// Whether the password has expired: then it is a wrong one.
    pub fn password_has_expired(&self, now: Time) -> bool {
        self.password_expires_at.is_some_and(|at| now >= at)
    }

    /// Whether the operator is one of those of whom one has to be left.
    pub fn is_acting_owner(&self) -> bool {
        self.is_active && self.role == OperatorRole::Owner
    }
}

fn checked_name(full_name: &str) -> Result<String, Invalid> {
    let full_name = full_name.trim();
    Check::all(|check| check.line("/full_name", full_name, 1..=120))?;
    Ok(full_name.to_owned())
}

/// What an operator's access token says. It names no tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorClaims {
    /// `sub`: the operator.
    pub operator: OperatorId,
    /// `epoch`: see [`Operator::epoch`].
    pub epoch: i64,
    /// `factor_at`: when the operator gave a second factor; `None` without one.
    pub factor_at: Option<Time>,
    /// `iat`.
    pub issued_at: Time,
    /// `exp`.
    pub expires_at: Time,
}

/// Signs and verifies operators' access tokens, whose audience is not the one of users.
pub trait OperatorTokens: Send + Sync {
    /// A signed token.
    fn sign(&self, claims: &OperatorClaims) -> String;

    /// The claims of a token of ours.
    ///
    /// # Errors
    /// [`TokenError`].
    fn verify(&self, token: &str) -> Result<OperatorClaims, TokenError>;

    /// How long a token lives, in seconds.
    fn lifetime_seconds(&self) -> i64;
}

/// The proof that an operator of the platform was admitted, or the system itself in an operator's place.
///
/// Its fields are private and only [`OperatorGate`] makes one, as with [`TenantScope`](crate::tenant::TenantScope). It leads
/// into no tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorScope {
    actor: OperatorActor,
    session: Option<OperatorSession>,
    request: RequestId,
}

/// What is known of an operator who is logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperatorSession {
    /// What the operator may do, as stored when the scope was made.
    pub role: OperatorRole,
    /// See [`Operator::epoch`].
    pub epoch: i64,
    /// When the operator gave a second factor, as the token says.
    pub factor_at: Option<Time>,
    /// When the token expires.
    pub expires_at: Time,
}

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatorActor {
    /// An operator who is logged in.
    Operator(OperatorId),
    /// Whoever may start commands on the server, or the server itself, with the reason.
    System(&'static str),
}

impl OperatorScope {
    /// Who acts.
    pub const fn actor(&self) -> OperatorActor {
        self.actor
    }

    /// The acting operator, when it is one.
    pub const fn operator(&self) -> Option<OperatorId> {
        match self.actor {
            OperatorActor::Operator(id) => Some(id),
            OperatorActor::System(_) => None,
        }
    }

    /// What is known of the operator; `None` of the system, which has every permission.
    pub const fn session(&self) -> Option<&OperatorSession> {
        self.session.as_ref()
    }

    /// On behalf of which request.
    pub const fn request(&self) -> &RequestId {
        &self.request
    }

    /// Whether the actor has a permission.
    pub fn has(&self, permission: OperatorPermission) -> bool {
        self.session
            .as_ref()
            .is_none_or(|session| session.role.has(permission))
    }
}

/// The only place where an [`OperatorScope`] is made.
#[derive(Clone)]
pub struct OperatorGate {
    operators: Arc<dyn Operators>,
    tokens: Arc<dyn OperatorTokens>,
}

impl std::fmt::Debug for OperatorGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OperatorGate")
    }
}

impl OperatorGate {
    /// A gate over the operators there are.
    pub fn new(operators: Arc<dyn Operators>, tokens: Arc<dyn OperatorTokens>) -> Self {
        Self { operators, tokens }
    }

    /// Admits the bearer of an operator's access token. The operator is read each time, so that one who was
    /// deactivated, or whose password was reset, is refused at once, wherever that was done.
    ///
    /// # Errors
    /// [`Denied::Token`], [`Denied::Revoked`], [`Denied::Store`].
    pub async fn bearer(&self, token: &str, request: RequestId) -> Result<OperatorScope, Denied> {
        let claims = self.tokens.verify(token)?;
        let because = SystemScope::because("admit an operator");
        let operator = self.operators.find(because, claims.operator).await?;
        let operator = operator
            .filter(|operator| operator.is_active && operator.epoch == claims.epoch)
            .ok_or(Denied::Revoked)?;
        Ok(OperatorScope {
            actor: OperatorActor::Operator(operator.id),
            session: Some(OperatorSession {
                role: operator.role,
                epoch: operator.epoch,
                factor_at: claims.factor_at,
                expires_at: claims.expires_at,
            }),
            request,
        })
    }

    /// Whether the token is an operator's, without asking the store: all that can be known while the store is away. It
    /// makes no scope.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn token(&self, token: &str) -> Result<(), TokenError> {
        self.tokens.verify(token).map(|_| ())
    }

    /// Admits the system itself in an operator's place: a command on the server, a login that is still under way.
    pub const fn system(&self, because: SystemScope, request: RequestId) -> OperatorScope {
        OperatorScope {
            actor: OperatorActor::System(because.reason()),
            session: None,
            request,
        }
    }
}

/// The operators of the platform, and what they do across tenants.
#[async_trait]
pub trait Operators: Send + Sync {
    /// An operator, active or not.
    async fn find(&self, because: SystemScope, id: OperatorId) -> Result<Option<Operator>, StoreError>;

    /// The operator with that address, active or not.
    async fn find_by_email(
        &self,
        because: SystemScope,
        email: &Email,
    ) -> Result<Option<Operator>, StoreError>;

    /// The same for a caller who has not authenticated: on connections that operators' work does not need.
    async fn find_to_log_in(
        &self,
        because: SystemScope,
        email: &Email,
    ) -> Result<Option<Operator>, StoreError>;

    /// Returns the addresses from which the operator with that mail address has logged in since then, each once and at most
    /// [`LOGIN_ADDRESSES`](crate::identity::LOGIN_ADDRESSES) of them; on the same connections.
    async fn login_addresses(
        &self,
        because: SystemScope,
        email: &Email,
        since: Time,
    ) -> Result<Vec<Option<String>>, StoreError>;

    /// All operators, oldest first.
    async fn list(&self, because: SystemScope) -> Result<Vec<Operator>, StoreError>;

    /// Begins a transaction for what an operator does.
    async fn begin(&self, scope: &OperatorScope) -> Result<Box<dyn OperatorWork>, StoreError>;

    /// The same for the record of a caller who was not admitted: on connections that operators' work does not need.
    async fn begin_for_guest(&self, scope: &OperatorScope) -> Result<Box<dyn OperatorWork>, StoreError>;

    /// Begins a transaction of failed guesses alone, on the same connections. Callers without an account cause it, so it
    /// leaves no event: their number is bounded elsewhere.
    async fn begin_guess(&self, because: SystemScope) -> Result<Box<dyn OperatorGuesses>, StoreError>;
}

/// A transaction of failed guesses at operators' accounts. Dropped, it is rolled back.
#[async_trait]
pub trait OperatorGuesses: Send {
    /// The failed guesses at operators' accounts.
    fn lockouts(&mut self) -> &mut dyn Lockouts;

    /// Stores what was counted, and ends the transaction.
    async fn commit(self: Box<Self>) -> Result<(), StoreError>;
}

/// A transaction of an operator's. It can only be committed with the record of what was done in it; dropped, it is
/// rolled back.
#[async_trait]
pub trait OperatorWork: Send {
    /// A tenant, deleted ones included.
    async fn tenant(&mut self, id: TenantId) -> Result<Option<Tenant>, StoreError>;

    /// A page of the tenants, newest first.
    async fn tenants(&mut self, filter: &TenantFilter, page: PageRequest)
    -> Result<Page<Tenant>, StoreError>;

    /// A page of what operators have done, newest first.
    async fn events(
        &mut self,
        filter: &OperatorEventFilter,
        page: PageRequest,
    ) -> Result<Page<RecordedOperatorEvent>, StoreError>;

    /// A tenant, deleted ones included, locked until the transaction ends.
    async fn tenant_for_update(&mut self, id: TenantId) -> Result<Option<Tenant>, StoreError>;

    /// Stores where a tenant is in its life, and nothing else of it.
    async fn update_lifecycle(&mut self, tenant: &Tenant) -> Result<(), StoreError>;

    /// Stores an event about the state of a tenant for the receivers of the tenant, in the transaction that changes it.
    async fn emit(&mut self, event: TenantEvent) -> Result<(), StoreError>;

    /// Puts the parked jobs of a tenant that is restored back into its queue; how many.
    async fn requeue_parked(&mut self, tenant: TenantId) -> Result<u64, StoreError>;

    /// Erases a purged tenant that has no rows any more, and leaves a tombstone; false when there is no such tenant.
    ///
    /// # Errors
    /// [`StoreError::Reference`] while there are rows.
    async fn bury(&mut self, tenant: TenantId, at: Time) -> Result<bool, StoreError>;

    /// A page of the system's own jobs, newest first.
    async fn system_jobs(
        &mut self,
        state: Option<JobState>,
        page: PageRequest,
    ) -> Result<Page<SystemJob>, StoreError>;

    /// One of the system's own jobs, locked until the transaction ends.
    async fn system_job_for_update(&mut self, id: SystemJobId) -> Result<Option<SystemJob>, StoreError>;

    /// Stores how far one of the system's own jobs is.
    async fn update_system_job(&mut self, job: &SystemJob) -> Result<(), StoreError>;

    /// A page of the operators, newest first.
    async fn operators(&mut self, page: PageRequest) -> Result<Page<Operator>, StoreError>;

    /// Adds an operator.
    async fn insert(&mut self, operator: &Operator) -> Result<(), StoreError>;

    /// An operator, locked until the transaction ends: what concerns the second factor is done one after the other.
    async fn lock_operator(&mut self, operator: OperatorId) -> Result<Option<Operator>, StoreError>;

    /// Stores the password of an operator, its expiry and the epoch, after [`Operator::set_password`].
    async fn replace_password(&mut self, operator: &Operator) -> Result<(), StoreError>;

    /// The ids of the active owners, locked until the transaction ends: changes that could leave none wait for one another.
    async fn lock_owners(&mut self) -> Result<Vec<OperatorId>, StoreError>;

    /// Stores an operator's name, role, state and epoch.
    async fn update(&mut self, operator: &Operator) -> Result<(), StoreError>;

    /// Returns the details of this operator's newest event with an idempotency key since a time; see
    /// [`OperatorEvent::details`].
    async fn keyed(&mut self, route: &str, key: &str, since: Time) -> Result<Option<Value>, StoreError>;

    /// Stores another hash of the same password, unless the operator has got another password meanwhile. Nothing else of
    /// the operator is touched.
    async fn renew_hash(&mut self, operator: &Operator, renewed: &PasswordHash) -> Result<(), StoreError>;

    /// The definitions of flags.
    fn flags(&mut self) -> &mut dyn FlagEditing;

    /// The signing keys of access tokens.
    fn signing_keys(&mut self) -> &mut dyn SigningKeyEditing;

    /// Rows of tenants, read only.
    fn rows(&mut self) -> &mut dyn PlatformRows;

    /// Operators' accesses to tenants, read only.
    fn support_accesses(&mut self) -> &mut dyn PlatformSupportAccesses;

    /// The second factors of operators.
    fn factors(&mut self) -> &mut dyn OperatorFactors;

    /// The failed guesses at operators' accounts.
    fn lockouts(&mut self) -> &mut dyn Lockouts;

    /// Stores the record of one more thing that is done in this transaction, besides that of [`OperatorWork::commit`].
    async fn record(&mut self, record: OperatorEvent) -> Result<(), StoreError>;

    /// Commits, with the record of it.
    async fn commit(self: Box<Self>, record: OperatorEvent) -> Result<(), StoreError>;
}
