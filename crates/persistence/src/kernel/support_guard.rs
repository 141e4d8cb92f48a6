use std::sync::Arc;

use tenantry_domain::kernel::{Clock, StoreError, SupportAccessId};

use crate::TenantTx;

/// Holds the transaction of an operator to the access that the tenant has given. The gate has compared it when the request began, and a
/// client that sends its body slowly could otherwise act for a while after the end.
pub(crate) struct SupportGuard {
    access: SupportAccessId,
    clock: Arc<dyn Clock>,
}

/// `$1` is the tenant. The approver must still be an acting admin.
const IN_FORCE: &str = "\
SELECT s.id FROM support_accesses s \
 WHERE s.tenant_id = $1 AND s.id = $2 AND s.status = 'active' AND s.expires_at > $3 \
   AND (s.decided_by IS NULL OR EXISTS (SELECT FROM users u WHERE u.tenant_id = $1 AND u.id = s.decided_by \
        AND u.role = 'admin' AND u.custom_role IS NULL AND u.is_active AND u.deleted_at IS NULL))";

/// The same, and the row stays as it is until the transaction ends.
const STAYS_IN_FORCE: &str = "\
SELECT s.id FROM support_accesses s \
 WHERE s.tenant_id = $1 AND s.id = $2 AND s.status = 'active' AND s.expires_at > $3 \
   AND (s.decided_by IS NULL OR EXISTS (SELECT FROM users u WHERE u.tenant_id = $1 AND u.id = s.decided_by \
        AND u.role = 'admin' AND u.custom_role IS NULL AND u.is_active AND u.deleted_at IS NULL)) \
   FOR SHARE OF s";

impl SupportGuard {
    pub(crate) fn new(access: SupportAccessId, clock: Arc<dyn Clock>) -> Self {
        Self { access, clock }
    }

    /// Makes sure that the access is in force, before anything is read.
    ///
    /// # Errors
    /// [`StoreError::AccessEnded`]; those of the database.
    pub(crate) async fn begin(&self, tx: &mut TenantTx) -> Result<(), StoreError> {
        self.ask(tx, IN_FORCE).await
    }

    /// Makes sure that the access is in force, as the last statement of a transaction that writes: an end of it waits for the commit, or
    /// this waits for the end. The lock comes last, since the end of an access takes it after that of the tenant's row.
    ///
    /// # Errors
    /// [`StoreError::AccessEnded`]; those of the database.
    pub(crate) async fn end(&self, tx: &mut TenantTx) -> Result<(), StoreError> {
        self.ask(tx, STAYS_IN_FORCE).await
    }

    async fn ask(&self, tx: &mut TenantTx, sql: &'static str) -> Result<(), StoreError> {
        let arguments = [self.access.uuid().into(), self.clock.now().into()];
        let found = tx.fetch_fixed(sql, arguments).await?;
        found.map(|_| ()).ok_or(StoreError::AccessEnded)
    }
}
