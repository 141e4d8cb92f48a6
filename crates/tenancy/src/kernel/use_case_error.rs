use tenantry_domain::kernel::{AsStoreError, Invalid, StoreError};
use tenantry_domain::tenant::{Denied, Refused};

use crate::kernel::not_in_plan::{AddError, NotInPlan};
use crate::kernel::precondition::Stale;

/// Why a use case did nothing: the reasons that all use cases share, and those of one capability.
///
/// Each capability names its error by an alias, such as `TaskError`, so that signatures say whose it is, and shared reasons have
/// one answer everywhere.
#[derive(Debug, thiserror::Error)]
pub enum UseCaseError<R: OwnReason = NoReason> {
    /// The caller may not do it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The input breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The entity has changed since the version that the caller names.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// The tenant has no such entity, or the caller must not learn of it.
    #[error("not found")]
    NotFound,
    /// The tenant's plan does not allow it.
    #[error(transparent)]
    NotInPlan(#[from] NotInPlan),
    /// The tenant cannot be entered, as it is unknown or deleted.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// A reason of the capability.
    #[error(transparent)]
    Own(R),
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}

/// A reason that only the use cases of one capability have.
pub trait OwnReason: std::error::Error + 'static {
    /// Returns the error of a use case of this capability whose transaction failed. It is overridden where a broken constraint
    /// is a reason of the capability, such as a name that is taken.
    fn of_store(error: StoreError) -> UseCaseError<Self>
    where
        Self: Sized,
    {
        UseCaseError::Store(error)
    }
}

/// For capabilities that have shared reasons only. It has no values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoReason {}

impl OwnReason for NoReason {}

impl<R: OwnReason> From<R> for UseCaseError<R> {
    fn from(reason: R) -> Self {
        Self::Own(reason)
    }
}

impl<R: OwnReason> From<StoreError> for UseCaseError<R> {
    fn from(error: StoreError) -> Self {
        R::of_store(error)
    }
}

impl<R: OwnReason> From<AddError> for UseCaseError<R> {
    fn from(error: AddError) -> Self {
        match error {
            AddError::NotInPlan(refused) => refused.into(),
            AddError::Store(error) => error.into(),
        }
    }
}

impl<R: OwnReason> AsStoreError for UseCaseError<R> {
    fn as_store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Store(error) => Some(error),
            Self::Refused(_)
            | Self::Invalid(_)
            | Self::Stale(_)
            | Self::NotFound
            | Self::NotInPlan(_)
            | Self::Denied(_)
            | Self::Own(_) => None,
        }
    }
}
