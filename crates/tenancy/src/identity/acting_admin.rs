//! Whether the caller is an admin in the transaction that acts. A scope is of the time when the request began; a client that sends
//! its body slowly could otherwise give itself back what it lost meanwhile.

use tenantry_domain::kernel::StoreError;
use tenantry_domain::store::Work;
use tenantry_domain::tenant::Refused;

use crate::Cx;

/// Makes sure that a user who acts is an acting admin, as stored now. Exact while the tenant's row is locked. Callers that are no
/// users (jobs, the system) pass. The outer error is the store's.
///
/// # Errors
/// [`Refused::Forbidden`] inside.
pub(crate) async fn require_acting_admin(
    cx: &Cx,
    work: &mut Work,
) -> Result<Result<(), Refused>, StoreError> {
    let Some(caller) = cx.scope().user() else {
        return Ok(Ok(()));
    };
    let caller = work.users().find(caller).await?;
    let acts = caller.is_some_and(|caller| caller.is_acting_admin());
    Ok(if acts { Ok(()) } else { Err(Refused::Forbidden) })
}
