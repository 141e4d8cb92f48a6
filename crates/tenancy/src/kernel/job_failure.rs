//! Failures of jobs, and whether another attempt can help.

use tenantry_domain::billing::ProviderError;
use tenantry_domain::kernel::StoreError;
use tenantry_domain::tenant::Refused;

use crate::kernel::carries_store_error::carries_store_error;

/// Why a job was not done.
#[derive(Debug, thiserror::Error)]
pub enum JobFailure {
    /// It may go better later.
    #[error("{0}")]
    Retry(String),
    /// It will not go better later.
    #[error("{0}")]
    Permanent(String),
    /// The tenant may not write: the job waits until it may, and this was no attempt.
    #[error("the tenant is suspended")]
    Suspended,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

carries_store_error!(JobFailure);

impl JobFailure {
    /// Whether trying again is of any use.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Permanent(_) => true,
            Self::Retry(_) | Self::Suspended => false,
            // A mistake of ours that stays one, and one that nobody should repeat.
            Self::Store(StoreError::RowSecurity(_) | StoreError::IsolationBreach { .. }) => true,
            Self::Store(
                StoreError::Unique(_)
                | StoreError::Reference(_)
                | StoreError::Check(_)
                | StoreError::Exclusion(_)
                | StoreError::Missing(_)
                | StoreError::Value { .. }
                | StoreError::Contention
                | StoreError::Unavailable(_)
                | StoreError::Key(_)
                | StoreError::AccessEnded
                | StoreError::Other(_),
            ) => false,
        }
    }
}

impl From<ProviderError> for JobFailure {
    fn from(error: ProviderError) -> Self {
        if error.may_pass() {
            Self::Retry(error.to_string())
        } else {
            Self::Permanent(error.to_string())
        }
    }
}

impl From<Refused> for JobFailure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Suspended => Self::Suspended,
            Refused::Forbidden
            | Refused::FactorRequired
            | Refused::FactorMissing
            | Refused::FactorTooNew
            | Refused::LoginRequired
            | Refused::OperatorFactorRequired => Self::Permanent(refused.to_string()),
        }
    }
}
