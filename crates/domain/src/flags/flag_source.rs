use std::sync::Arc;

use async_trait::async_trait;

use crate::flags::{FlagProgram, FlagSet};
use crate::kernel::{StoreError, SystemScope};
use crate::tenant::TenantScope;

/// All definitions, from wherever they are remembered or stored.
#[async_trait]
pub trait FlagDefinitions: Send + Sync {
    /// All of them, made ready for evaluation.
    async fn program(&self, because: SystemScope) -> Result<Arc<FlagProgram>, StoreError>;
}

/// What holds for one tenant, from wherever it is remembered or put together.
#[async_trait]
pub trait FlagSource: Send + Sync {
    /// The flags of the scope's tenant.
    async fn flags(&self, scope: &TenantScope) -> Result<Arc<FlagSet>, StoreError>;

    /// The same without waiting for anything, when it is remembered.
    fn cached(&self, scope: &TenantScope) -> Option<Arc<FlagSet>>;
}
