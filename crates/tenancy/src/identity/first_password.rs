//! First passwords, which the server generated or somebody else chose: they expire, so that none becomes the password of the account.
//!
//! One that has expired is answered at login like a wrong one. Its user chooses another by a link to reset the password.

use chrono::Duration;
use serde_json::json;
use tenantry_domain::identity::{
    AccountNotice, HashingCaller, Password, PasswordError, PasswordHash, RareNotice, User,
};
use tenantry_domain::kernel::{AccountNoticeId, Invalid, Permission, StoreError};

use crate::customization::product_settings::{DEFAULT_FIRST_PASSWORD_DAYS, FIRST_PASSWORD_DAYS};
use crate::customization::setting;
use crate::identity::account_mail;
use crate::operations::job::{JobFailure, JobHandler, Nothing};
use crate::{Cx, Tenancy};

/// For how long a first password works from now on, in the tenant of the context.
pub(crate) async fn lifetime(cx: &Cx) -> Result<Duration, StoreError> {
    let days = setting::find(cx, &FIRST_PASSWORD_DAYS).await?;
    Ok(Duration::days(days.unwrap_or(DEFAULT_FIRST_PASSWORD_DAYS)))
}

/// For how long the first password of a tenant's first admin works. The tenant has no settings yet.
pub(crate) const fn lifetime_in_new_tenant() -> Duration {
    Duration::days(DEFAULT_FIRST_PASSWORD_DAYS)
}

/// For how long a password works that an operator of the platform did not choose.
pub(crate) const fn lifetime_of_operators() -> Duration {
    Duration::days(DEFAULT_FIRST_PASSWORD_DAYS)
}

/// Refuses a first password of a user as the new one, also when others were chosen since: it would stay. The password was proven before, or
/// a mailed link stands for it, so the answer helps nobody to guess.
///
/// # Errors
/// `weak_password` at `/new_password`; [`PasswordError`].
pub(crate) async fn refuse_again<E>(
    cx: &Cx,
    caller: &HashingCaller,
    user: &User,
    new: &Password,
) -> Result<(), E>
where
    E: From<Invalid> + From<PasswordError>,
{
    for first in user.first_passwords() {
        refuse_same::<E>(cx.app(), caller, first, new).await?;
    }
    Ok(())
}

/// Refuses the password of a hash as the new one.
///
/// # Errors
/// As of [`refuse_again`].
pub(crate) async fn refuse_same<E>(
    app: &Tenancy,
    caller: &HashingCaller,
    hash: PasswordHash,
    new: &Password,
) -> Result<(), E>
where
    E: From<Invalid> + From<PasswordError>,
{
    let compared = app
        .ports
        .passwords
        .verify(caller, new.clone(), Some(hash))
        .await?;
    if compared.is_right() {
        let detail = "is the password that was first chosen for the account; choose another one";
        return Err(Invalid::one("/new_password", "weak_password", detail).into());
    }
    Ok(())
}

/// Notifies users whose first password expires within two days, once. It runs about once a day in each tenant, so each user gets the mail
/// a day before the password expires, or earlier.
#[derive(Debug, Clone, Copy)]
pub struct NotifyOfFirstPasswords;

/// How long before a first password expires its user is notified at the earliest.
const NOTICE: Duration = Duration::days(2);
/// How many users are notified at once.
const AT_ONCE: usize = 200;

impl JobHandler for NotifyOfFirstPasswords {
    const KIND: &'static str = "user.notify_of_first_password";
    // Users of a suspended tenant log in, too.
    const WRITES: bool = false;
    type Payload = Nothing;

    async fn run(&self, cx: &Cx, _: Nothing) -> Result<(), JobFailure> {
        cx.require(Permission::SendMail)?;
        let mut after = cx.now();
        let until = after + NOTICE;
        loop {
            let users = cx
                .read(async |work| work.users().list_expiring(after, until, AT_ONCE).await)
                .await?;
            for user in &users {
                notify(cx, user).await?;
            }
            let last = users.last().and_then(|user| user.password_expires_at);
            match last.filter(|last| users.len() == AT_ONCE && *last > after) {
                Some(last) => after = last,
                None => return Ok(()),
            }
        }
    }
}

async fn notify(cx: &Cx, seen: &User) -> Result<(), StoreError> {
    let id = AccountNoticeId::next(cx.ids());
    cx.write(async |work| {
        let user = work.users().find_for_update(seen.id).await?;
        let user = user.filter(|user| user.password_expires_at == seen.password_expires_at);
        let Some((user, until)) = user.and_then(|user| Some((user.clone(), user.password_expires_at?)))
        else {
            return Ok(());
        };
        let kind = RareNotice::PasswordExpires;
        // A notice of this expiry is not older than that.
        let since = until - NOTICE - Duration::seconds(1);
        if !work
            .rare_notices()
            .note(id, user.id, kind, cx.now(), since)
            .await?
        {
            return Ok(());
        }
        account_mail::notify(cx, work, &user, AccountNotice::PasswordExpires { until }).await?;
        let details = json!({"expires_at": until});
        let event = cx.security(
            "user.password_expires_soon",
            "user",
            Some(user.id.uuid()),
            details,
        );
        work.audit().record(event).await
    })
    .await
}
