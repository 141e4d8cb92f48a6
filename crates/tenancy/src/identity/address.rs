//! Which addresses of a tenant nobody else can take: those that are invited, and those that a user gave up lately.
//!
//! Who takes an address, or reserves one, holds the tenant's row first. So of two requests at once for an address one sees what
//! the other has done.

use tenantry_domain::identity::Email;
use tenantry_domain::kernel::{StoreError, UserId};
use tenantry_domain::store::Work;

use crate::Cx;

/// Locks the tenant's row until the transaction ends.
pub(crate) async fn lock_tenant(work: &mut Work) -> Result<(), StoreError> {
    let tenant = work.tenants().current_for_update().await?;
    let gone = || StoreError::Other("the scope's tenant is not there".into());
    tenant.map(|_| ()).ok_or_else(gone)
}

/// Whether an address is kept from everybody but this user: an open invitation has it, or another user had it and can take it
/// back. Only meaningful while the tenant is locked.
pub(crate) async fn is_reserved(
    cx: &Cx,
    work: &mut Work,
    email: &Email,
    user: Option<UserId>,
) -> Result<bool, StoreError> {
    let invited = work.invitations().find_unsettled(email).await?;
    let is_invited = invited.is_some_and(|invitation| invitation.is_open(cx.now()));
    Ok(is_invited || is_former(cx, work, email, user).await?)
}

/// Whether another user than this one had the address and can take it back, by a link that was mailed to it. Of a user who was
/// removed nothing is kept.
pub(crate) async fn is_former(
    cx: &Cx,
    work: &mut Work,
    email: &Email,
    user: Option<UserId>,
) -> Result<bool, StoreError> {
    for link in work.account_links().list_former(email).await? {
        let is_other = Some(link.user_id) != user && link.is_live(cx.now());
        if is_other && work.users().find(link.user_id).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}
