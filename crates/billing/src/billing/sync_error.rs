//! Errors of what asks the payment provider.

use tenantry_domain::billing::ProviderError;
use tenantry_domain::kernel::StoreError;
use tenantry_tenancy::carries_store_error;
use tenantry_tenancy::operations::job::{JobError, JobFailure};

/// Errors of a synchronization with the payment provider.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The provider did not answer, or not as promised.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// The next step of dunning could not be put into the queue.
    #[error(transparent)]
    Job(JobError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
carries_store_error!(SyncError);

impl From<JobError> for SyncError {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Store(error) => Self::Store(error),
            other => Self::Job(other),
        }
    }
}

impl From<SyncError> for JobFailure {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Store(error) => Self::Store(error),
            SyncError::Provider(error) => error.into(),
            SyncError::Job(error) => Self::Retry(error.to_string()),
        }
    }
}
