//! Which addresses of a tenant nobody else can take: those that are invited, and those that a user gave up lately.
//!
//! Who takes an address, or reserves one, holds the tenant's row first. So of two requests at once for an address one sees what
//! the other has done.

use chrono::Duration;
use tenantry_domain::identity::{Email, LinkPurpose, User};
use tenantry_domain::kernel::{StoreError, Time, UserId};
use tenantry_domain::store::Work;

pub(crate) use crate::kernel::step_up::lock_tenant;
use crate::{Changed, Cx};

/// For how long a registration waits for the proof of its address.
const REGISTRATION_WAITS: Duration = Duration::days(7);

/// The maximum number of registrations of a tenant that wait for the proof of their address. Anybody can register, so a further one
/// ends the oldest.
const REGISTRATIONS_WAITING: u64 = 1_000;

/// The maximum number of registrations that a purge removes in one transaction.
const PURGED_AT_ONCE: usize = 100;

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

/// Removes the user who registered with an address and has not proven it, so that another one can have it: anybody can register with
/// the address of somebody else. One whom an admin deactivated stays, and keeps the address: otherwise another registration would undo
/// what the admin did. In a transaction that holds the tenant's row.
pub(crate) async fn supersede_registration(
    cx: &Cx,
    work: &mut Work,
    email: &Email,
) -> Result<(), StoreError> {
    let Some(found) = work.users().find_by_email(email).await? else {
        return Ok(());
    };
    let locked = work.users().find_for_update(found.id).await?;
    match locked.filter(|user| may_be_removed(user) && user.email == *email) {
        Some(user) => remove_registration(cx, work, user, "user.registration_superseded").await,
        None => Ok(()),
    }
}

/// Ends the oldest registration that waits for the proof of its address when there are [`REGISTRATIONS_WAITING`]; in the transaction that
/// adds one, which holds the tenant's row.
pub(crate) async fn make_room_for_registration(cx: &Cx, work: &mut Work) -> Result<(), StoreError> {
    if work.users().count_unproven().await? >= REGISTRATIONS_WAITING {
        remove_unproven(cx, work, cx.now(), 1).await?;
    }
    Ok(())
}

/// Deletes registrations whose address was not proven in [`REGISTRATION_WAITS`], and those that were removed before, some in each
/// transaction.
pub(crate) async fn purge_registrations(cx: &Cx) -> Result<(), StoreError> {
    let before = cx.now() - REGISTRATION_WAITS;
    let remove = async || {
        cx.write(async |work| remove_unproven(cx, work, before, PURGED_AT_ONCE).await)
            .await
    };
    while remove().await? == PURGED_AT_ONCE {}
    loop {
        let removed = cx
            .read(async |work| work.users().list_removed_unproven(PURGED_AT_ONCE).await)
            .await?;
        for user in &removed {
            delete_removed(cx, user).await?;
        }
        if removed.len() < PURGED_AT_ONCE {
            return Ok(());
        }
    }
}

/// Deletes the row of a registration that was removed. Where others refer to it, for example a task that is assigned to it, the row
/// stays like that of every removed user.
async fn delete_removed(cx: &Cx, user: &User) -> Result<(), StoreError> {
    match cx.write(async |work| work.users().delete(user.id).await).await {
        Err(StoreError::Reference(constraint)) => {
            tracing::info!(user = %user.id, ?constraint, "removed registration is referenced, its row stays");
        }
        // What else went wrong says nothing about the row: the purge is tried again.
        other => return other,
    }
    let mut kept = user.clone();
    kept.set_password(cx.ports().passwords.unusable(), cx.now());
    cx.write(async |work| work.users().update(&kept).await).await
}

/// Removes the oldest registrations that have waited since before then, at most `limit`. Returns how many.
async fn remove_unproven(cx: &Cx, work: &mut Work, before: Time, limit: usize) -> Result<usize, StoreError> {
    let found = work.users().list_unproven(before, limit).await?;
    let number = found.len();
    for found in found {
        let locked = work.users().find_for_update(found.id).await?;
        if let Some(user) = locked.filter(may_be_removed) {
            remove_registration(cx, work, user, "user.registration_expired").await?;
        }
    }
    Ok(number)
}

/// Whether a user is a registration that ends when others name its address, or by itself.
fn may_be_removed(user: &User) -> bool {
    user.awaits_proof() && user.is_active
}

/// Removes a user who registered and never proved the address.
async fn remove_registration(
    cx: &Cx,
    work: &mut Work,
    before: User,
    action: &'static str,
) -> Result<(), StoreError> {
    work.account_links()
        .delete_of(before.id, &LinkPurpose::ALL)
        .await?;
    let mut user = before.clone();
    user.remove(cx.now());
    work.users().update(&user).await?;
    cx.record(work, Changed::ended(action, &before)).await
}
