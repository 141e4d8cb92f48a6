use crate::kernel::{AsStoreError, ErrorCode, FieldError, Invalid, KeyTaken, StoreError};

/// Why a request fails, independent of the web framework: what the caller is answered, and what only the log may say. It is the
/// error of use cases that have no errors of their own; those that need a recent second factor do, since the answer to that
/// says more than a code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .code.title())]
pub struct Failure {
    /// The code of the answer, with its status and title.
    pub code: ErrorCode,
    /// The invalid fields of the request.
    pub fields: Vec<FieldError>,
    /// The error of the store behind it. It is for the log, and tells contention, after which a transaction is run again.
    pub cause: Option<StoreError>,
}

impl AsStoreError for Failure {
    fn as_store_error(&self) -> Option<&StoreError> {
        self.cause.as_ref()
    }
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        Self {
            code,
            fields: Vec::new(),
            cause: None,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let code = ErrorCode::from(&error);
        Self {
            fields: error.invalid().map_or_else(Vec::new, |Invalid(fields)| fields),
            cause: Some(error),
            ..code.into()
        }
    }
}

impl From<Invalid> for Failure {
    fn from(Invalid(fields): Invalid) -> Self {
        Self {
            fields,
            ..ErrorCode::ValidationFailed.into()
        }
    }
}

/// What a caller is answered when the store fails. What only the caller can mend, such as a broken rule of an embedding service's
/// table, is [`ErrorCode::ValidationFailed`]; what a caller must not see is [`ErrorCode::Internal`].
impl From<&StoreError> for ErrorCode {
    fn from(error: &StoreError) -> Self {
        match error {
            StoreError::Check(_) | StoreError::Missing(_) | StoreError::Value { .. } => {
                ErrorCode::ValidationFailed
            }
            StoreError::Exclusion(_) | StoreError::Unique(_) => ErrorCode::Conflict,
            StoreError::Contention | StoreError::Unavailable(_) => ErrorCode::Unavailable,
            StoreError::AccessEnded => ErrorCode::TokenRevoked,
            StoreError::Key(KeyTaken::InProgress) => ErrorCode::IdempotencyInProgress,
            StoreError::Key(KeyTaken::Reused) => ErrorCode::IdempotencyKeyReused,
            StoreError::Key(KeyTaken::Outranked) => ErrorCode::Forbidden,
            StoreError::Key(KeyTaken::Done(_) | KeyTaken::Unreadable) => ErrorCode::Conflict,
            StoreError::Reference(_)
            | StoreError::RowSecurity(_)
            | StoreError::IsolationBreach { .. }
            | StoreError::Other(_) => ErrorCode::Internal,
        }
    }
}
