//! Correcting the address of an account whose mail its owner cannot read, by an operator.
//!
//! An admin who is alone in a tenant and mistyped the address at sign-up gets no link and can ask no other admin: with an expired first
//! password nothing leads back in.

use serde_json::json;
use tenantry_domain::identity::{Email, LinkPurpose, User, UserPatch};
use tenantry_domain::kernel::{Constraint, Invalid, Patch, Permission, StoreError, UserId};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::Refused;

use crate::identity::email_domain::AllowedDomains;
use crate::identity::{account_link, address};
use crate::kernel::carries_store_error::carries_store_error;
use crate::{Changed, Cx, OperatorCx};

/// Why an address is not corrected.
#[derive(Debug, thiserror::Error)]
pub enum CorrectionError {
    /// Not allowed.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Input that does not hold.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// No user of the tenant has the address.
    #[error("no such user")]
    NoSuchUser,
    /// The address was proven, so its owner resets the password by a mailed link.
    #[error("the address is verified: the user resets the password by a mailed link")]
    Verified,
    /// The user is no admin, or another admin can change the address.
    #[error("the user is not the only admin of the tenant: an admin changes the address of another user")]
    NotAlone,
    /// Another user or invitation has the new address, or it is reserved.
    #[error("the new address is taken, invited or reserved in the tenant")]
    EmailTaken,
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}
carries_store_error!(CorrectionError);

impl From<StoreError> for CorrectionError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unique(Constraint::UserEmail) => Self::EmailTaken,
            other => Self::Store(other),
        }
    }
}

/// Gives the only admin of a tenant another address in place of one that was never verified, and mails a link to choose a password to it.
/// Links that were mailed to the former address end. The new address is unverified until the link is opened, which also ends all sessions.
///
/// # Errors
/// [`CorrectionError`].
pub async fn correct(
    operators: &OperatorCx,
    cx: &Cx,
    email: &Email,
    new: &Email,
) -> Result<User, CorrectionError> {
    operators.require_command()?;
    cx.require(Permission::RecoverUsers)?;
    if email == new {
        return Err(Invalid::one("/to", "unchanged", "is the address of the account already").into());
    }
    AllowedDomains::of(cx).await?.check_at(new, "/to")?;
    let found = cx.read(async |work| work.users().find_by_email(email).await);
    let id = found.await?.ok_or(CorrectionError::NoSuchUser)?.id;
    // The account and not its addresses: they are erased with the person.
    let details = json!({ "user": id });
    let record = operators.record("user.email_corrected", Some(cx.scope().tenant()), details);
    let corrected = cx.write(async |work| replace(cx, work, (id, email), new).await);
    operators
        .act(record, "user.email_correction_failed", corrected)
        .await
}

async fn replace(
    cx: &Cx,
    work: &mut Work,
    (id, email): (UserId, &Email),
    new: &Email,
) -> Result<User, CorrectionError> {
    address::lock_tenant(work).await?;
    let before = work.users().find_for_update(id).await?;
    let before = before.filter(|user| user.email == *email);
    let before = before.ok_or(CorrectionError::NoSuchUser)?;
    if before.email_verified {
        return Err(CorrectionError::Verified);
    }
    if !before.is_acting_admin() || work.users().count_other_admins(id).await? > 0 {
        return Err(CorrectionError::NotAlone);
    }
    if address::is_reserved(cx, work, new, Some(id)).await? {
        return Err(CorrectionError::EmailTaken);
    }
    address::supersede_registration(cx, work, new).await?;
    let mut user = before.clone();
    let patch = UserPatch {
        email: Patch::Set(new.as_str().to_owned()),
        ..UserPatch::default()
    };
    user.apply(patch, cx.now())?;
    work.users().update(&user).await?;
    let links = work.account_links();
    links.delete_of(id, &LinkPurpose::OF_PRESENT_ADDRESS).await?;
    account_link::issue(cx, work, &user, LinkPurpose::ResetPassword, &user.email).await?;
    cx.record(work, Changed::with("user.email_corrected", Some(&before), &user))
        .await?;
    Ok(user)
}
