use std::sync::Arc;

use uuid::Uuid;

use crate::identity::Narrowing;
use crate::kernel::{
    ApiKeyId, ErrorCode, Failure, JobId, OperatorId, Permission, PermissionSet, RequestId, Role, SessionId,
    SupportAccessId, TenantId, Time, UserId,
};
use crate::plans::Subscription;
use crate::tenant::{Capability, SupportLevel, TenantStatus};

mod gate;

pub use gate::{
    Admission, ApiKeyFacts, Denied, Directory, Gate, JobFacts, MembershipFacts, SupportFacts, TenantFacts,
    TenantSelector,
};

/// The proof that somebody was admitted to one tenant, and as what.
///
/// Its fields are private and only [`Gate`] makes one; it is not `Default` and not `Deserialize`. It is passed
/// explicitly and lives as long as the request or the job it was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantScope {
    tenant: TenantId,
    status: TenantStatus,
    actor: Actor,
    role: Option<Role>,
    /// What the custom role of the user, or of an API key's creator, leaves of the role.
    narrowing: Option<Narrowing>,
    /// The scopes of an API key, which bound what it may do; everybody else goes by the role.
    grants: PermissionSet,
    subscription: Option<Arc<Subscription>>,
    factor_at: Option<Time>,
    /// SHA-256 of the secret that an API key was presented with.
    key_secret: Option<[u8; 32]>,
    /// Whether a portal token leaves the user no more than [`Permission::OF_PORTAL`].
    portal: bool,
    request: RequestId,
}

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// A user in a session.
    User {
        /// The user.
        id: UserId,
        /// The login session of the request.
        session: SessionId,
    },
    /// A program with an API key.
    ApiKey {
        /// Which key.
        id: ApiKeyId,
        /// The user who created it.
        creator: UserId,
        /// Whether it belongs to the tenant and not to its creator.
        service_account: bool,
    },
    /// An operator of the platform with an access that the tenant has approved.
    Operator {
        /// The operator.
        id: OperatorId,
        /// The approval by which the operator is in the tenant.
        access: SupportAccessId,
        /// What it allows.
        level: SupportLevel,
        /// The admin who has approved it: what support creates belongs to them.
        approved_by: Option<UserId>,
    },
    /// Somebody who has not logged in: the scope admits to login and registration only.
    Guest,
    /// Whoever is founding the tenant that the scope is of.
    Founder,
    /// The system itself, with its reason.
    System(&'static str),
    /// A job that runs in the background.
    Job {
        /// The running job.
        id: JobId,
        /// The user who asked for it, when one did.
        on_behalf_of: Option<UserId>,
    },
}

impl Actor {
    /// What it is, as the audit log says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User { .. } => "user",
            Self::ApiKey { .. } => "api_key",
            Self::Operator { .. } => "operator",
            Self::Guest => "guest",
            Self::Founder => "founder",
            Self::System(_) => "system",
            Self::Job { .. } => "job",
        }
    }

    /// The user who acts or on whose behalf it is.
    pub const fn user(self) -> Option<UserId> {
        match self {
            Self::User { id, .. } => Some(id),
            Self::ApiKey {
                creator,
                service_account: false,
                ..
            } => Some(creator),
            Self::Job { on_behalf_of, .. } => on_behalf_of,
            Self::ApiKey { .. } | Self::Operator { .. } | Self::Guest | Self::Founder | Self::System(_) => {
                None
            }
        }
    }

    /// Its id, as the audit log has it: that of the key where a program acts.
    pub const fn id(self) -> Option<Uuid> {
        match self {
            Self::ApiKey { id, .. } => Some(id.uuid()),
            Self::User { id, .. } => Some(id.uuid()),
            Self::Operator { id, .. } => Some(id.uuid()),
            Self::Job { on_behalf_of, .. } => match on_behalf_of {
                Some(user) => Some(user.uuid()),
                None => None,
            },
            Self::Guest | Self::Founder | Self::System(_) => None,
        }
    }
}

/// The scope does not allow it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The role is too low.
    #[error("the role does not allow this")]
    Forbidden,
    /// The tenant is read-only.
    #[error("the tenant is suspended and read-only")]
    Suspended,
    /// The user has a second factor, and has not given it lately.
    #[error("the request needs a recent second factor")]
    FactorRequired,
    /// The user has no second factor, and the request is not allowed without one.
    #[error("the request needs a second factor, and the user has none")]
    FactorMissing,
    /// The user enrolled the second factor too lately for a request that concerns the accounts of others.
    #[error("the request needs a second factor that was enabled at least 24 hours ago")]
    FactorTooNew,
    /// The user has no second factor to give again, and the session began too long ago.
    #[error("the request needs a login of the last minutes")]
    LoginRequired,
    /// The operator has not given a second factor lately.
    #[error("the request needs a recent second factor of the operator")]
    OperatorFactorRequired,
}

/// What a caller is answered whose request is refused. The answer to a missing second factor says more than a code can, so the
/// HTTP layer makes it of [`Refused`] itself; what only has the code says that the request is forbidden.
impl From<Refused> for ErrorCode {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Suspended => ErrorCode::TenantSuspended,
            Refused::Forbidden
            | Refused::FactorRequired
            | Refused::FactorMissing
            | Refused::FactorTooNew
            | Refused::LoginRequired
            | Refused::OperatorFactorRequired => ErrorCode::Forbidden,
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        ErrorCode::from(refused).into()
    }
}

impl TenantScope {
    /// The tenant that everything done with this scope belongs to.
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Who acts.
    pub const fn actor(&self) -> Actor {
        self.actor
    }

    /// The acting user, or the one for whom an API key acts; a job acts for a user and is none.
    pub const fn user(&self) -> Option<UserId> {
        match self.actor {
            Actor::User { .. } | Actor::ApiKey { .. } => self.actor.user(),
            Actor::Operator { .. } | Actor::Guest | Actor::Founder | Actor::System(_) | Actor::Job { .. } => {
                None
            }
        }
    }

    /// The user to whom new things belong: the acting one; of any API key, a service account's too, its creator; of
    /// an operator the admin who has approved the access.
    pub const fn author(&self) -> Option<UserId> {
        match self.actor {
            Actor::ApiKey { creator, .. } => Some(creator),
            Actor::Operator { approved_by, .. } => approved_by,
            Actor::User { .. } | Actor::Guest | Actor::Founder | Actor::System(_) | Actor::Job { .. } => {
                self.user()
            }
        }
    }

    /// The API key that acts, when it is one.
    pub const fn api_key(&self) -> Option<ApiKeyId> {
        match self.actor {
            Actor::ApiKey { id, .. } => Some(id),
            Actor::User { .. }
            | Actor::Operator { .. }
            | Actor::Guest
            | Actor::Founder
            | Actor::System(_)
            | Actor::Job { .. } => None,
        }
    }

    /// The access with which an operator of the platform acts, when it is one.
    pub const fn support_access(&self) -> Option<SupportAccessId> {
        match self.actor {
            Actor::Operator { access, .. } => Some(access),
            Actor::User { .. }
            | Actor::ApiKey { .. }
            | Actor::Guest
            | Actor::Founder
            | Actor::System(_)
            | Actor::Job { .. } => None,
        }
    }

    /// The SHA-256 of the secret that the acting API key was presented with; a rotated key has a former secret beside the
    /// present one for a while.
    pub const fn key_secret(&self) -> Option<&[u8; 32]> {
        self.key_secret.as_ref()
    }

    /// The session of the acting user.
    pub const fn session(&self) -> Option<SessionId> {
        match self.actor {
            Actor::User { session, .. } => Some(session),
            Actor::ApiKey { .. }
            | Actor::Operator { .. }
            | Actor::Guest
            | Actor::Founder
            | Actor::System(_)
            | Actor::Job { .. } => None,
        }
    }

    /// The job that acts, when it is one.
    pub const fn job(&self) -> Option<JobId> {
        match self.actor {
            Actor::Job { id, .. } => Some(id),
            Actor::Guest
            | Actor::Founder
            | Actor::System(_)
            | Actor::User { .. }
            | Actor::ApiKey { .. }
            | Actor::Operator { .. } => None,
        }
    }

    /// The role, as stored when the scope was made; of an API key that of its creator, of a service account none, of an
    /// operator one that goes with the access and gives no permission. A user with a custom role has at most its base role, and is a member at the most.
    pub fn role(&self) -> Option<Role> {
        let narrowed = |role| {
            self.narrowing
                .as_ref()
                .map_or(role, |narrowing| narrowing.narrowed(role))
        };
        self.role.map(narrowed)
    }

    /// The tenant's plan and what was agreed with it, as stored when the scope was made; none while the tenant is founded.
    pub const fn subscription(&self) -> Option<&Arc<Subscription>> {
        self.subscription.as_ref()
    }

    /// When the acting user last gave a second factor, as their access token says.
    pub const fn factor_at(&self) -> Option<Time> {
        self.factor_at
    }

    /// Whether the user acts with a portal token.
    pub const fn is_portal(&self) -> bool {
        self.portal
    }

    /// Whether the actor is an admin of the tenant, without a custom role. An API key is none, whoever created it: it can do what
    /// its scopes say. Nor is the bearer of a portal token.
    pub fn is_admin(&self) -> bool {
        self.role() == Some(Role::Admin) && self.api_key().is_none() && !self.portal
    }

    /// Whether the actor has a permission, also while a suspended tenant is without it.
    pub fn has(&self, permission: Permission) -> bool {
        match self.actor {
            // What no user may do. What users may do, a job that one asked for does without their role.
            Actor::System(_) | Actor::Job { .. } => permission.least_role().is_none(),
            Actor::User { .. } | Actor::Founder => self.user_has(permission),
            Actor::ApiKey { service_account, .. } => self.key_has(service_account, permission),
            Actor::Operator { level, .. } => level.allows(permission),
            Actor::Guest => false,
        }
    }

    /// Whether the role has a permission, and the custom role and a portal token leave it.
    fn user_has(&self, permission: Permission) -> bool {
        let least = permission.least_role();
        let by_role = least.is_some_and(|least| self.role.is_some_and(|role| role >= least));
        let is_left = |narrowing: &Narrowing| narrowing.leaves(permission);
        let is_open = !self.portal || Permission::OF_PORTAL.contains(&permission);
        by_role && is_open && self.narrowing.as_ref().is_none_or(is_left)
    }

    /// Whether the API key has a permission: it is among its scopes, and its creator still has it. A service account's key has no
    /// other ceiling than its scopes, and may rotate itself.
    fn key_has(&self, service_account: bool, permission: Permission) -> bool {
        if service_account && permission == Permission::RotateApiKeys {
            return true;
        }
        let within = service_account || self.user_has(permission);
        permission.is_scope() && self.grants.contains(permission) && within
    }

    /// The state of the tenant when the scope was made.
    pub const fn status(&self) -> TenantStatus {
        self.status
    }

    /// Whether the state of the tenant allows it.
    pub const fn allows(&self, capability: Capability) -> bool {
        self.status.allows(capability)
    }

    /// For what no permission stands for, such as registrations.
    ///
    /// # Errors
    /// [`Refused::Suspended`].
    pub const fn require_write(&self) -> Result<(), Refused> {
        if self.allows(Capability::Write) {
            Ok(())
        } else {
            Err(Refused::Suspended)
        }
    }

    /// On behalf of which request.
    pub const fn request(&self) -> &RequestId {
        &self.request
    }

    /// The same scope on behalf of another request: that of an operator, whose own log names it too.
    #[must_use]
    pub fn on_behalf_of(mut self, request: &RequestId) -> Self {
        self.request = request.clone();
        self
    }

    /// The first line of every use case.
    ///
    /// # Errors
    /// [`Refused::Forbidden`] when the role is too low, before [`Refused::Suspended`] when the tenant is read-only.
    pub fn require(&self, permission: Permission) -> Result<(), Refused> {
        if !self.has(permission) {
            return Err(Refused::Forbidden);
        }
        if permission.writes() {
            self.require_write()
        } else {
            Ok(())
        }
    }
}
