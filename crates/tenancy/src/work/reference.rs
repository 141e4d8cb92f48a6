//! What tasks and resources refer to.

use tenantry_domain::kernel::{Constraint, Invalid, StoreError};

use crate::{OwnReason, UseCaseError};

/// Tasks and resources have no reasons beyond those that all use cases share, but references that a broken constraint names. It has no
/// values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceReason {}

impl OwnReason for ReferenceReason {
    fn of_store(error: StoreError) -> UseCaseError<Self> {
        match error {
            // Both are looked up first; these are the races that remain.
            StoreError::Reference(Constraint::ProjectReference) => unknown_project().into(),
            StoreError::Reference(Constraint::UserReference) => unknown_assignee().into(),
            other => UseCaseError::Store(other),
        }
    }
}

pub(super) fn unknown_project() -> Invalid {
    Invalid::one("/project_id", "not_found", "there is no such project")
}

pub(super) fn unknown_assignee() -> Invalid {
    Invalid::one("/assignee_id", "not_found", "there is no such user")
}
