use tenantry_domain::kernel::{Role, StoreError};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::Refused;

use crate::Cx;
use crate::kernel::step_up::{self, lock_tenant};

/// Locks the tenant's row, so that changes of endpoints come one after the other, and makes sure that an admin who acts is one still, with
/// a live session. The outer error is the store's.
///
/// An API key and a user with a custom role, who may have the permission as well, go by their scope.
///
/// # Errors
/// [`Refused::Forbidden`] inside.
pub(super) async fn hold(cx: &Cx, work: &mut Work) -> Result<Result<(), Refused>, StoreError> {
    lock_tenant(work).await?;
    let is_admin = cx.scope().session().is_some() && cx.scope().role() == Some(Role::Admin);
    if !is_admin {
        return Ok(Ok(()));
    }
    let admin = step_up::require_acting_admin(cx, work).await?;
    Ok(admin.map(|_| ()))
}
