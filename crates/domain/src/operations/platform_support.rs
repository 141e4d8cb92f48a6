use async_trait::async_trait;

use crate::kernel::{OperatorId, Page, PageRequest, StoreError, SupportAccessId, TenantId, Time};
use crate::tenant::{SupportAccess, SupportStatus};

/// An operator's access, and the tenant that it leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformSupportAccess {
    /// Whose rows the operator may see.
    pub tenant: TenantId,
    /// What was asked for, and how far it is.
    pub access: SupportAccess,
}

/// Which accesses are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SupportFilter {
    /// Only to this tenant.
    pub tenant: Option<TenantId>,
    /// Only of this operator.
    pub operator: Option<OperatorId>,
    /// Only those that stand so.
    pub status: Option<SupportStatus>,
}

/// Operators' accesses to all tenants. They are read, and ended with the account of their operator; all else is done in the scope of the
/// tenant.
#[async_trait]
pub trait PlatformSupportAccesses: Send {
    /// The one with an id.
    async fn find(&mut self, id: SupportAccessId) -> Result<Option<PlatformSupportAccess>, StoreError>;

    /// A page of them, newest first, as they stand at a time.
    async fn list(
        &mut self,
        filter: &SupportFilter,
        now: Time,
        page: PageRequest,
    ) -> Result<Page<PlatformSupportAccess>, StoreError>;

    /// Ends all of an operator that wait for an answer or are in force at a time. Returns their tenants, whose logs get an entry
    /// afterwards.
    async fn end_of(&mut self, operator: OperatorId, at: Time) -> Result<Vec<TenantId>, StoreError>;
}
