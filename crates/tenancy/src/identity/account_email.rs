//! A user's address: changing it, and taking the change back.
//!
//! The new address is proven before it is taken over. The former one gets a link that takes the change back for seven days,
//! so that somebody who got hold of a session and a password cannot keep the account.

use serde_json::json;
use tenantry_domain::identity::{AccountLink, Email, LinkPurpose, Password, PresentedLink, User};
use tenantry_domain::kernel::{Invalid, Permission, StoreError};
use tenantry_domain::store::Work;

use crate::identity::account::{self, AccountError};
use crate::identity::email_domain::AllowedDomains;
use crate::identity::mfa::{self, NewFactors};
use crate::identity::{account_link, address, session};
use crate::kernel::step_up::RecentFactor;
use crate::{Changed, Cx};

/// Sends a link to the address that the caller's account is to get. Whether another user has it is not said here: only who
/// reads its mail learns that, by [`confirm`]. It takes a recent factor: links to former addresses give an account back, so
/// a password and a session must not be enough to make one's own address a former address.
///
/// # Errors
/// `/email`; [`AccountError::InvalidCredentials`] for another password; [`AccountError::Refused`] without a recent factor;
/// [`AccountError::AskedTooOften`]; [`AccountError`].
pub async fn change(cx: &Cx, email: &str, password: Password) -> Result<(), AccountError> {
    cx.require(Permission::ManageOwnAccount)?;
    let email = Email::parse(email, "/email")?;
    let (seen, _) = account::own(cx).await?;
    if seen.email == email {
        return Err(Invalid::one("/email", "unchanged", "is the address of the account already").into());
    }
    AllowedDomains::of(cx).await?.check(&email)?;
    let factor = cx.require_recent_factor().await??;
    account::confirm(cx, &seen, password).await?;
    cx.write(async |work| ask_to_confirm(cx, work, &seen, &email, factor).await)
        .await
}

async fn ask_to_confirm(
    cx: &Cx,
    work: &mut Work,
    seen: &User,
    email: &Email,
    _: RecentFactor,
) -> Result<(), AccountError> {
    let user = work.users().find_for_update(seen.id).await?;
    let user = user.filter(|user| user.is_active && user.password_hash == seen.password_hash);
    let user = user.ok_or(AccountError::InvalidCredentials)?;
    check_former(cx, work, &user).await?;
    if account_link::issue_to_confirm(cx, work, &user, email).await? {
        Ok(())
    } else {
        Err(AccountError::AskedTooOften)
    }
}

/// Gives the account that a link opens the address that the link was sent to, if the tenant still allows its domain.
///
/// # Errors
/// `/token` when the link does not work, [`AccountError::EmailTaken`]; [`AccountError`].
pub async fn confirm(cx: &Cx, token: &PresentedLink) -> Result<(), AccountError> {
    let domains = AllowedDomains::of(cx).await?;
    cx.write(async |work| {
        address::lock_tenant(work).await?;
        let redeemed = account_link::redeem(cx, work, LinkPurpose::ConfirmEmail, token).await?;
        let (link, before) = redeemed.ok_or_else(account_link::unusable)?;
        domains.check_at(&link.email, "/token")?;
        check_former(cx, work, &before).await?;
        if address::is_reserved(cx, work, &link.email, Some(before.id)).await? {
            return Err(AccountError::EmailTaken);
        }
        address::supersede_registration(cx, work, &link.email).await?;
        let mut user = before.clone();
        user.move_to(link.email, cx.now());
        work.users().update(&user).await?;
        cx.record(work, Changed::with("user.email_changed", Some(&before), &user))
            .await?;
        Ok(moved(cx, work, &user, &before).await?)
    })
    .await
}

/// Gives the account that a link opens its former address back, which the link was sent to, ends all of its sessions, and
/// removes its trusted devices. Second factors and passkeys stay if they were settled before the change of address, or if the tenant keeps
/// them: later ones may be those of a thief, who changed the address. A thief may know the password, so it ends, and a link to choose a new one is sent to the
/// address.
///
/// # Errors
/// `/token` when the link does not work, [`AccountError::EmailTaken`]; [`AccountError`].
pub async fn revert(cx: &Cx, token: &PresentedLink) -> Result<(), AccountError> {
    let new_factors = NewFactors::of(cx).await?;
    cx.write(async |work| {
        address::lock_tenant(work).await?;
        let redeemed = account_link::redeem(cx, work, LinkPurpose::RevertEmail, token).await?;
        let (link, before) = redeemed.ok_or_else(account_link::unusable)?;
        address::supersede_registration(cx, work, &link.email).await?;
        let mut user = before.clone();
        user.move_to(link.email.clone(), cx.now());
        user.set_password(cx.ports().passwords.unusable(), cx.now());
        let ended = session::end_all(cx, work, &mut user).await?;
        let removed = mfa::remove_unsettled(cx, work, user.id, (new_factors, link.created_at)).await?;
        removed.notify(cx, work, user.id).await?;
        withdraw(work, &user, &link).await?;
        account_link::issue(cx, work, &user, LinkPurpose::ResetPassword, &user.email).await?;
        let target = user.id.uuid();
        cx.record(work, Changed::with("user.email_reverted", Some(&before), &user))
            .await?;
        let event = cx.security(
            "session.ended_all",
            "user",
            Some(target),
            json!({"ended_sessions": ended}),
        );
        Ok(work.audit().record(event).await?)
    })
    .await
}

/// What follows when a locked user has another address now: links to the former one stop working, and it gets one that takes
/// the change back. A former address that was never verified gets none: it may be a stranger's.
async fn moved(cx: &Cx, work: &mut Work, user: &User, former: &User) -> Result<(), StoreError> {
    let links = work.account_links();
    links.delete_of(user.id, &LinkPurpose::OF_PRESENT_ADDRESS).await?;
    if former.email_verified {
        account_link::issue(cx, work, user, LinkPurpose::RevertEmail, &former.email).await?;
    }
    Ok(())
}

/// Deletes the links that a change of address left behind which was taken back: those of the address that is given up, and
/// those to give back an address that the account got later than this one.
async fn withdraw(work: &mut Work, user: &User, reverted: &AccountLink) -> Result<(), StoreError> {
    let links = work.account_links();
    links.delete_of(user.id, &LinkPurpose::OF_PRESENT_ADDRESS).await?;
    for later in links.list(user.id, LinkPurpose::RevertEmail).await? {
        if later.created_at >= reverted.created_at {
            links.delete(later.id).await?;
        }
    }
    Ok(())
}

/// Each former address has a link for seven days, so an account can have few of them.
async fn check_former(cx: &Cx, work: &mut Work, user: &User) -> Result<(), AccountError> {
    let former = work
        .account_links()
        .list(user.id, LinkPurpose::RevertEmail)
        .await?;
    let live = former.iter().filter(|link| link.is_live(cx.now())).count();
    if live < AccountLink::MOST_FORMER {
        Ok(())
    } else {
        Err(AccountError::ChangedTooOften)
    }
}
