use crate::kernel::{Invalid, KeyTaken, TenantId};

/// A named constraint of the database that a use case knows how to explain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constraint {
    /// Two tenants with one slug.
    TenantSlug,
    /// Two tenants with one subdomain.
    TenantSubdomain,
    /// Two live users of a tenant with one e-mail address.
    UserEmail,
    /// Two unsettled invitations of a tenant with one address.
    InvitationEmail,
    /// Two passkeys of a tenant with one credential of an authenticator.
    PasskeyCredential,
    /// Two custom roles of a tenant with one name.
    RoleName,
    /// Two custom domains of a tenant with one name.
    DomainClaimed,
    /// Another tenant holds the custom domain.
    DomainHeld,
    /// Another operator has the address.
    OperatorEmail,
    /// Two live projects of a tenant with one name.
    ProjectName,
    /// A user twice in a project.
    ProjectMember,
    /// A task or resource in a project that is not there.
    ProjectReference,
    /// A member, owner or assignee that is not there.
    UserReference,
    /// Any other, by name.
    Other(String),
}

/// Why the store did not do it. Adapters map their own errors into these, exhaustively.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A unique key is taken.
    #[error("unique constraint {0:?}")]
    Unique(Constraint),
    /// A reference points at nothing (in this tenant).
    #[error("foreign key {0:?}")]
    Reference(Constraint),
    /// A check constraint of a table of an embedding service does not hold: its name.
    #[error("check constraint {0}")]
    Check(String),
    /// An exclusion constraint of a table of an embedding service does not hold: its name.
    #[error("exclusion constraint {0}")]
    Exclusion(String),
    /// A column of a table of an embedding service has no value and needs one: its name.
    #[error("column {0} must not be null")]
    Missing(String),
    /// A statement of an embedding service has a value that its column does not hold, or that is no value of its type.
    #[error("data exception: {reason} (SQLSTATE {state})")]
    Value {
        /// The SQLSTATE, of class 22.
        state: String,
        /// Its name in PostgreSQL's manual.
        reason: &'static str,
    },
    /// Serialization failure or deadlock: the same work may succeed when run again.
    #[error("the transaction lost a race and may be run again")]
    Contention,
    /// No connection, a timeout, a server going away.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// Row-level security refused a row: the code above asked for another tenant's.
    #[error("row-level security refused the statement: {0}")]
    RowSecurity(String),
    /// A row of another tenant came back. It was withheld.
    #[error("isolation breach: a row of {found} in a scope of {scope}, table {table}")]
    IsolationBreach {
        /// The table it came from.
        table: &'static str,
        /// The tenant of the scope.
        scope: TenantId,
        /// The tenant of the row.
        found: TenantId,
    },
    /// The request's idempotency key stands in its way, or has its answer.
    #[error(transparent)]
    Key(#[from] KeyTaken),
    /// The support access with which an operator acts is no longer in force.
    #[error("the support access is no longer in force")]
    AccessEnded,
    /// Anything else.
    #[error("store: {0}")]
    Other(String),
}

impl StoreError {
    /// What is invalid of a request, where only its caller can mend the error: it breaks a rule of an embedding service's table. The
    /// rule is named by its constraint, or the column; which part of the request that is, only the service knows. A service that
    /// wants another answer matches [`StoreError::Check`] by the name of its constraint first.
    pub fn invalid(&self) -> Option<Invalid> {
        let (code, detail) = match self {
            Self::Check(rule) => ("check_violated", format!("breaks the rule `{rule}`")),
            Self::Missing(column) => ("required", format!("the column `{column}` needs a value")),
            Self::Value { reason, .. } => {
                let detail = format!("has a value that its column does not hold: {reason}");
                ("invalid_value", detail)
            }
            Self::Unique(_)
            | Self::Reference(_)
            | Self::Exclusion(_)
            | Self::Contention
            | Self::Unavailable(_)
            | Self::RowSecurity(_)
            | Self::IsolationBreach { .. }
            | Self::Key(_)
            | Self::AccessEnded
            | Self::Other(_) => return None,
        };
        Some(Invalid::one("", code, detail))
    }
}

/// An error that may hold a [`StoreError`], so that the runner can tell contention from the rest.
pub trait AsStoreError {
    /// The store's error, when that is what this is.
    fn as_store_error(&self) -> Option<&StoreError>;

    /// Whether the work lost a race and may be run again.
    fn is_contention(&self) -> bool {
        matches!(self.as_store_error(), Some(StoreError::Contention))
    }
}

impl AsStoreError for StoreError {
    fn as_store_error(&self) -> Option<&StoreError> {
        Some(self)
    }
}
