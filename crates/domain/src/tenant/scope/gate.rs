use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Actor, TenantScope};
use crate::identity::{
    AccessTokens, ApiKey, KeyRefusal, Narrowing, PasswordError, PresentedApiKey, TokenError,
};
use crate::kernel::{
    ApiKeyId, ErrorCode, Failure, IdSource, OperatorId, PermissionSet, RequestId, Role, SessionId,
    StoreError, SupportAccessId, SystemScope, TenantId, Time, UserId,
};
use crate::plans::Subscription;
use crate::tenant::{
    Capability, DomainName, Initiator, JobLease, PortalTokens, Slug, SupportClaims, SupportLevel,
    SupportTokens, TenantStatus,
};

/// How a tenant is named from outside when no credential names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TenantSelector {
    /// `X-Tenant-ID`.
    Id(TenantId),
    /// `X-Tenant-Slug`, or a slug in a body.
    Slug(Slug),
    /// The label before the base domain.
    Subdomain(Slug),
    /// A host that a tenant has proven to be its own, while requests for it are served.
    Domain(DomainName),
}

/// What the directory stores of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantFacts {
    /// Identifies the tenant; never used again after deletion.
    pub id: TenantId,
    /// The tenant's name in URLs.
    pub slug: Slug,
    /// The tenant's label below the base domain, if it has one.
    pub subdomain: Option<Slug>,
    /// Its plan, and what was agreed with it.
    pub subscription: Arc<Subscription>,
    /// Its state.
    pub status: TenantStatus,
}

/// What is stored of a user's place in a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipFacts {
    /// The tenant that the user belongs to.
    pub tenant: TenantFacts,
    /// The user's role.
    pub role: Role,
    /// What the user's custom role leaves of the role, if they have one.
    pub narrowing: Option<Narrowing>,
    /// Whether the user may log in.
    pub is_active: bool,
    /// Whether the session has been neither revoked nor outlived.
    pub session_is_live: bool,
    /// When it ends unless it is refreshed: what is remembered of it is of no use after that.
    pub session_expires_at: Time,
}

/// What is stored of an API key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyFacts {
    /// The tenant that the key belongs to.
    pub tenant: TenantFacts,
    /// The key, which may be revoked or expired.
    pub key: ApiKey,
    /// The role of its creator; none when they are deactivated or removed.
    pub creator_role: Option<Role>,
    /// What its creator's custom role leaves of the role, if they have one.
    pub creator_narrowing: Option<Narrowing>,
}

impl ApiKeyFacts {
    /// The role to which the key is held; none for a service account.
    fn role(&self) -> Result<Option<Role>, KeyRefusal> {
        if self.key.service_account {
            return Ok(None);
        }
        self.creator_role.map(Some).ok_or(KeyRefusal::Creator)
    }
}

/// What is stored of a job that a worker has leased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFacts {
    /// The tenant that the job belongs to.
    pub tenant: TenantFacts,
    /// Who asked for it.
    pub initiator: Initiator,
}

/// What is stored of an operator's access to a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SupportFacts {
    /// The tenant that the access leads to.
    pub tenant: TenantFacts,
    /// The one who asked for the access and alone may use it.
    pub operator: OperatorId,
    /// The epoch of the operator's tokens; none of an operator who is deactivated, or whose role uses no such access.
    pub operator_epoch: Option<i64>,
    /// What it allows.
    pub level: SupportLevel,
    /// The admin who has approved it; none where the tenant's policy has.
    pub approved_by: Option<UserId>,
    /// Whether it is in force now.
    pub is_live: bool,
}

/// The stored facts that scopes are made of.
///
/// An implementation is part of what the guarantee rests on: it must read the database.
#[async_trait]
pub trait Directory: Send + Sync {
    /// A tenant, deleted ones included.
    async fn tenant(&self, selector: &TenantSelector) -> Result<Option<TenantFacts>, StoreError>;

    /// A tenant that [`Directory::tenant`] would find without a look into the store.
    fn cached_tenant(&self, _: &TenantSelector) -> Option<TenantFacts> {
        None
    }

    /// The tenants that hosts lead to, deleted ones included, each with what names it: a label below the base domain, or a domain
    /// that the tenant has proven. A store answers with one statement.
    async fn tenants_by_hosts(
        &self,
        labels: &[Slug],
        domains: &[DomainName],
    ) -> Result<Vec<(TenantSelector, TenantFacts)>, StoreError> {
        let labels = labels.iter().cloned().map(TenantSelector::Subdomain);
        let hosts = labels.chain(domains.iter().cloned().map(TenantSelector::Domain));
        let mut found = Vec::new();
        for host in hosts.collect::<Vec<_>>() {
            if let Some(tenant) = self.tenant(&host).await? {
                found.push((host, tenant));
            }
        }
        Ok(found)
    }

    /// Those of some tenants that there are, deleted ones included, with one question.
    async fn tenants(&self, ids: &[TenantId]) -> Result<Vec<TenantFacts>, StoreError>;

    /// A user's membership as seen in one session; `None` when user or session are not there.
    async fn membership(
        &self,
        tenant: TenantId,
        user: UserId,
        session: SessionId,
    ) -> Result<Option<MembershipFacts>, StoreError>;

    /// An API key of a tenant, revoked ones included.
    async fn api_key(&self, tenant: TenantId, key: ApiKeyId) -> Result<Option<ApiKeyFacts>, StoreError>;

    /// Whether [`Directory::api_key`] would answer without a look into the store.
    fn caches_api_key(&self, tenant: TenantId, key: ApiKeyId) -> bool;

    /// An operator's access to a tenant, whether it is in force or not. It is read each time, so that one that an admin has ended, or
    /// whose operator was deactivated, leads nowhere at once, on every server.
    async fn support_access(
        &self,
        tenant: TenantId,
        access: SupportAccessId,
    ) -> Result<Option<SupportFacts>, StoreError>;

    /// A job of the lease's tenant, as long as it runs under that lease and the lease has not run out.
    async fn job(&self, lease: &JobLease) -> Result<Option<JobFacts>, StoreError>;
}

/// Why nobody was admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The credential is no good.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The credential was good once: session ended, user deactivated or removed.
    #[error("the access token has been revoked")]
    Revoked,
    /// The API key is no good.
    #[error("the API key was refused: {0}")]
    ApiKey(KeyRefusal),
    /// The security policy of the tenant does not allow the caller's address.
    #[error("the tenant's security policy does not allow the address")]
    Address,
    /// No such tenant.
    #[error("no such tenant")]
    TenantNotFound,
    /// The tenant has been deleted.
    #[error("the tenant has been deleted")]
    TenantGone,
    /// The job is leased to another worker by now, or it has ended.
    #[error("the lease of the job has been lost")]
    LeaseLost,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<PasswordError> for Denied {
    fn from(error: PasswordError) -> Self {
        Self::Store(error.into())
    }
}

impl Denied {
    /// Why a tenant that is listed cannot be entered, in words for an operator: it is deleted, or not in use yet. `None` for a failure.
    pub const fn not_in_use(&self) -> Option<&'static str> {
        match self {
            Self::TenantGone => Some("is deleted"),
            Self::TenantNotFound => Some("is provisioning (its import has not ended) or gone"),
            Self::Token(_)
            | Self::Revoked
            | Self::ApiKey(_)
            | Self::Address
            | Self::LeaseLost
            | Self::Store(_) => None,
        }
    }
}

/// What a caller is answered who is not admitted.
impl From<&Denied> for ErrorCode {
    fn from(denied: &Denied) -> Self {
        match denied {
            Denied::Token(TokenError::Invalid) | Denied::ApiKey(_) => ErrorCode::Unauthenticated,
            Denied::Token(TokenError::Expired) => ErrorCode::TokenExpired,
            Denied::Revoked => ErrorCode::TokenRevoked,
            Denied::Address => ErrorCode::Forbidden,
            Denied::TenantNotFound => ErrorCode::TenantNotFound,
            Denied::TenantGone => ErrorCode::TenantGone,
            // Leases are for workers; no request has one.
            Denied::LeaseLost => ErrorCode::Internal,
            Denied::Store(error) => error.into(),
        }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Store(error) => error.into(),
            denied => ErrorCode::from(&denied).into(),
        }
    }
}

/// Somebody was admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The proof.
    pub scope: TenantScope,
    /// The tenant it is a proof for.
    pub tenant: TenantFacts,
}

/// The only place where a [`TenantScope`] is made: rules over stored facts.
#[derive(Clone)]
pub struct Gate {
    directory: Arc<dyn Directory>,
    tokens: Arc<dyn AccessTokens>,
    support_tokens: Arc<dyn SupportTokens>,
    portal_tokens: Arc<dyn PortalTokens>,
    ids: Arc<dyn IdSource>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
}

impl Gate {
    /// A gate over a directory.
    pub fn new(
        directory: Arc<dyn Directory>,
        tokens: Arc<dyn AccessTokens>,
        support_tokens: Arc<dyn SupportTokens>,
        portal_tokens: Arc<dyn PortalTokens>,
        ids: Arc<dyn IdSource>,
    ) -> Self {
        Self {
            directory,
            tokens,
            support_tokens,
            portal_tokens,
            ids,
        }
    }

    /// Admits the bearer of an access token: the token must be ours, and tenant, user and session still stand. The token may also be an
    /// operator's for this tenant; then the access that it names must be in force. With a portal token the user has a few permissions.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn bearer(&self, token: &str, request: RequestId) -> Result<Admission, Denied> {
        match self.tokens.verify(token) {
            Ok(claims) => {
                let who = (claims.tenant, claims.user, claims.session);
                let mut admission = self.user(who, request).await?;
                admission.scope.factor_at = claims.factor_at;
                Ok(admission)
            }
            Err(TokenError::Invalid) => self.other_bearer(token, request).await,
            Err(TokenError::Expired) => Err(TokenError::Expired.into()),
        }
    }

    /// The same for what is no access token of a user.
    async fn other_bearer(&self, token: &str, request: RequestId) -> Result<Admission, Denied> {
        match self.support_tokens.verify(token) {
            Ok(claims) => return self.support(claims, request).await,
            Err(TokenError::Invalid) => {}
            Err(TokenError::Expired) => return Err(TokenError::Expired.into()),
        }
        let claims = self.portal_tokens.verify(token)?;
        let who = (claims.tenant, claims.user, claims.session);
        let mut admission = self.user(who, request).await?;
        admission.scope.portal = true;
        Ok(admission)
    }

    /// Admits a user in a session that still stands.
    async fn user(
        &self,
        (tenant, user, session): (TenantId, UserId, SessionId),
        request: RequestId,
    ) -> Result<Admission, Denied> {
        let facts = self.directory.membership(tenant, user, session).await?;
        let Some(facts) = facts else {
            // The deletion of a tenant marks its users as well.
            let tenant = self.directory.tenant(&TenantSelector::Id(tenant)).await?;
            let status = tenant.map(|tenant| admit(tenant.status, Capability::Read));
            return Err(status.and_then(Result::err).unwrap_or(Denied::Revoked));
        };
        let status = admit(facts.tenant.status, Capability::Read)?;
        if !facts.is_active || !facts.session_is_live {
            return Err(Denied::Revoked);
        }
        let actor = Actor::User { id: user, session };
        let scope = TenantScope {
            role: Some(facts.role),
            narrowing: facts.narrowing,
            ..admitted(&facts.tenant, status, actor, request)
        };
        Ok(Admission {
            scope,
            tenant: facts.tenant,
        })
    }

    /// The tenant that an access token of a user, or of an operator for a tenant, was issued for; also after it has expired.
    pub fn issued_to(&self, token: &str) -> Option<TenantId> {
        let of_user = self.tokens.issued_to(token);
        let of_support = || self.support_tokens.issued_to(token);
        of_user
            .or_else(of_support)
            .or_else(|| self.portal_tokens.issued_to(token))
    }

    /// Admits an operator to the tenant that has approved it: the access is in force, and the operator and their tokens still stand.
    async fn support(&self, claims: SupportClaims, request: RequestId) -> Result<Admission, Denied> {
        let facts = self
            .directory
            .support_access(claims.tenant, claims.access)
            .await?;
        let facts = facts.ok_or(Denied::Revoked)?;
        let status = admit(facts.tenant.status, Capability::Read)?;
        let is_theirs = facts.operator == claims.operator && facts.operator_epoch == Some(claims.epoch);
        if !facts.is_live || !is_theirs {
            return Err(Denied::Revoked);
        }
        let role = match facts.level {
            SupportLevel::Read => Role::Viewer,
            SupportLevel::Write => Role::Admin,
        };
        let actor = Actor::Operator {
            id: facts.operator,
            access: claims.access,
            level: facts.level,
            approved_by: facts.approved_by,
        };
        let scope = TenantScope {
            role: Some(role),
            ..admitted(&facts.tenant, status, actor, request)
        };
        Ok(Admission {
            scope,
            tenant: facts.tenant,
        })
    }

    /// Admits a program with an API key: key and creator still stand, and the key is used from a network of its list. What it
    /// may do is its scopes, less what its creator may not.
    ///
    /// # Errors
    /// [`Denied::ApiKey`], [`Denied::TenantNotFound`], [`Denied::TenantGone`], [`Denied::Store`].
    pub async fn api_key(
        &self,
        presented: &PresentedApiKey,
        address: Option<IpAddr>,
        now: Time,
        request: RequestId,
    ) -> Result<Admission, Denied> {
        let facts = self.directory.api_key(presented.tenant, presented.id).await?;
        let facts = facts.ok_or(Denied::ApiKey(KeyRefusal::Unknown))?;
        let admitted = facts.key.admit(&presented.secret_hash, address, now);
        admitted.map_err(Denied::ApiKey)?;
        // Before the role of its creator, which ends with the tenant.
        let status = admit(facts.tenant.status, Capability::Read)?;
        let role = facts.role().map_err(Denied::ApiKey)?;
        let scope = TenantScope {
            tenant: facts.tenant.id,
            status,
            actor: Actor::ApiKey {
                id: facts.key.id,
                creator: facts.key.creator,
                service_account: facts.key.service_account,
            },
            role,
            narrowing: facts.creator_narrowing,
            grants: facts.key.scopes,
            subscription: Some(Arc::clone(&facts.tenant.subscription)),
            factor_at: None,
            key_secret: Some(presented.secret_hash),
            portal: false,
            request,
        };
        Ok(Admission {
            scope,
            tenant: facts.tenant,
        })
    }

    /// Whether [`Gate::api_key`] would answer without a look into the store.
    pub fn caches_api_key(&self, presented: &PresentedApiKey) -> bool {
        self.directory.caches_api_key(presented.tenant, presented.id)
    }

    /// Admits somebody without a credential as far as login and registration.
    ///
    /// # Errors
    /// [`Denied::TenantNotFound`], [`Denied::TenantGone`], [`Denied::Store`].
    pub async fn guest(&self, selector: &TenantSelector, request: RequestId) -> Result<Admission, Denied> {
        self.select(selector, Capability::Login, Actor::Guest, request)
            .await
    }

    /// The tenant that a selector leads to, deleted ones included: for comparing what a request names. It admits nobody.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find(&self, selector: &TenantSelector) -> Result<Option<TenantFacts>, StoreError> {
        self.directory.tenant(selector).await
    }

    /// The tenant that a selector leads to, where that is cached. It admits nobody.
    pub fn find_cached(&self, selector: &TenantSelector) -> Option<TenantFacts> {
        self.directory.cached_tenant(selector)
    }

    /// The tenants that hosts lead to, deleted ones included, with one question. It admits nobody.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_by_hosts(
        &self,
        labels: &[Slug],
        domains: &[DomainName],
    ) -> Result<Vec<(TenantSelector, TenantFacts)>, StoreError> {
        self.directory.tenants_by_hosts(labels, domains).await
    }

    /// Admits the system itself to one tenant, for work in the background.
    ///
    /// # Errors
    /// [`Denied::TenantNotFound`], [`Denied::TenantGone`], [`Denied::Store`].
    pub async fn system(&self, because: SystemScope, tenant: TenantId) -> Result<TenantScope, Denied> {
        let request = RequestId::next(self.ids.as_ref());
        let admission = self
            .select(
                &TenantSelector::Id(tenant),
                Capability::Jobs,
                Actor::System(because.reason()),
                request,
            )
            .await?;
        Ok(admission.scope)
    }

    /// The same for a tenant whose restoration ends: it is still deleted while the entry of that is added to its log.
    ///
    /// # Errors
    /// [`Denied::TenantNotFound`], [`Denied::TenantGone`], [`Denied::Store`].
    pub async fn restoring(&self, because: SystemScope, tenant: TenantId) -> Result<TenantScope, Denied> {
        let found = self.directory.tenant(&TenantSelector::Id(tenant)).await?;
        let tenant = found.ok_or(Denied::TenantNotFound)?;
        let status = match tenant.status {
            TenantStatus::Deleted => TenantStatus::Deleted,
            other => admit(other, Capability::Jobs)?,
        };
        let request = RequestId::next(self.ids.as_ref());
        Ok(admitted(
            &tenant,
            status,
            Actor::System(because.reason()),
            request,
        ))
    }

    /// Admits the system itself to each of some tenants, as [`Self::system`] does to one, with one question to the store:
    /// for work that goes through many of them. In the order in which they are named.
    ///
    /// # Errors
    /// [`StoreError`] when nothing is known of any. Of each tenant [`Denied::TenantNotFound`] or [`Denied::TenantGone`].
    pub async fn system_each(
        &self,
        because: SystemScope,
        tenants: &[TenantId],
    ) -> Result<Vec<(TenantId, Result<TenantScope, Denied>)>, StoreError> {
        let found = self.directory.tenants(tenants).await?;
        let found: HashMap<TenantId, TenantFacts> =
            found.into_iter().map(|facts| (facts.id, facts)).collect();
        let actor = Actor::System(because.reason());
        let admit = |tenant: &TenantId| {
            let request = RequestId::next(self.ids.as_ref());
            let facts = found.get(tenant).ok_or(Denied::TenantNotFound);
            let scope = |facts: &TenantFacts| {
                let status = admit(facts.status, Capability::Jobs)?;
                Ok(admitted(facts, status, actor, request))
            };
            (*tenant, facts.and_then(scope))
        };
        Ok(tenants.iter().map(admit).collect())
    }

    /// Admits a worker to the tenant of a job that it has leased: the job must be in that tenant and the lease still
    /// stand. What the job does is done on behalf of whoever asked for it, in the same request.
    ///
    /// # Errors
    /// [`Denied::LeaseLost`], [`Denied::TenantGone`], [`Denied::Store`].
    pub async fn job(&self, lease: &JobLease, _because: SystemScope) -> Result<TenantScope, Denied> {
        self.leased(lease, |status| admit(status, Capability::Jobs)).await
    }

    /// The same for a job that is done although its tenant may be deleted by then, such as telling people
    /// that it is. In a deleted tenant nothing can be written with the scope.
    ///
    /// # Errors
    /// [`Denied::LeaseLost`], [`Denied::TenantNotFound`], [`Denied::Store`].
    pub async fn farewell(&self, lease: &JobLease, _because: SystemScope) -> Result<TenantScope, Denied> {
        let even_deleted = |status| match status {
            TenantStatus::Deleted => Ok(status),
            other => admit(other, Capability::Jobs),
        };
        self.leased(lease, even_deleted).await
    }

    async fn leased(
        &self,
        lease: &JobLease,
        admit: impl FnOnce(TenantStatus) -> Result<TenantStatus, Denied> + Send,
    ) -> Result<TenantScope, Denied> {
        let facts = self.directory.job(lease).await?.ok_or(Denied::LeaseLost)?;
        let status = admit(facts.tenant.status)?;
        let actor = Actor::Job {
            id: lease.job,
            on_behalf_of: facts.initiator.actor_id,
        };
        Ok(admitted(&facts.tenant, status, actor, facts.initiator.request))
    }

    /// The scope of a tenant that is about to be born. The id is made here, so this never leads into a tenant
    /// that exists.
    pub fn found(&self, _because: SystemScope, request: RequestId) -> TenantScope {
        TenantScope {
            tenant: TenantId::next(self.ids.as_ref()),
            status: TenantStatus::Active,
            actor: Actor::Founder,
            role: Some(Role::Admin),
            narrowing: None,
            grants: PermissionSet::default(),
            subscription: None,
            factor_at: None,
            key_secret: None,
            portal: false,
            request,
        }
    }

    async fn select(
        &self,
        selector: &TenantSelector,
        capability: Capability,
        actor: Actor,
        request: RequestId,
    ) -> Result<Admission, Denied> {
        let tenant = self
            .directory
            .tenant(selector)
            .await?
            .ok_or(Denied::TenantNotFound)?;
        let status = admit(tenant.status, capability)?;
        let scope = admitted(&tenant, status, actor, request);
        Ok(Admission { scope, tenant })
    }
}

/// The scope of somebody without a role in a tenant.
fn admitted(tenant: &TenantFacts, status: TenantStatus, actor: Actor, request: RequestId) -> TenantScope {
    TenantScope {
        tenant: tenant.id,
        status,
        actor,
        role: None,
        narrowing: None,
        grants: PermissionSet::default(),
        subscription: Some(Arc::clone(&tenant.subscription)),
        factor_at: None,
        key_secret: None,
        portal: false,
        request,
    }
}

/// Lets the state of a tenant decide. Active and suspended tenants have all capabilities that the gate asks for.
fn admit(status: TenantStatus, capability: Capability) -> Result<TenantStatus, Denied> {
    match status {
        _ if status.allows(capability) => Ok(status),
        // Provisioning happens in one transaction, so nobody can see a tenant in this state but its founder.
        TenantStatus::Provisioning => Err(Denied::TenantNotFound),
        TenantStatus::Active | TenantStatus::Suspended | TenantStatus::Deleted | TenantStatus::Purged => {
            Err(Denied::TenantGone)
        }
    }
}
