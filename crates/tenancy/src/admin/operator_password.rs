//! The password of an operator who is logged in.

use serde_json::json;
use tenantry_domain::identity::{CallerClass, CallerGroup, HashingCaller, Password};
use tenantry_domain::kernel::OperatorId;
use tenantry_domain::operations::{OperatorPermission, OperatorTotp, OperatorWork};
use tenantry_domain::tenant::Refused;

use crate::OperatorCx;
use crate::admin::operator::OperatorError;
use crate::admin::operator_login::{self, OperatorLoggedIn};
use crate::admin::operator_mfa;
use crate::identity::{first_password, new_password, support_end};

/// Changes the password of the operator who is logged in, who knows the present one. Ends all of the operator's tokens, logins that wait
/// for a second factor, and accesses to tenants. The token that is returned takes the place of the present one and expires when that
/// does, so a change does not extend a login.
///
/// It takes a recent factor of an operator who has one, also where operators need none: the password alone must not be enough to keep the
/// owner of the account out.
///
/// # Errors
/// `weak_password` at `/new_password`, also for a first password that is chosen again; [`OperatorError::WrongPassword`],
/// [`OperatorError::Locked`], [`OperatorError::Refused`]; [`OperatorError::InvalidToken`] when the operator's tokens ended meanwhile.
pub async fn change(
    cx: &OperatorCx,
    current: Password,
    new: String,
) -> Result<OperatorLoggedIn, OperatorError> {
    cx.require(OperatorPermission::ChangeOwnPassword)?;
    let session = *cx.scope().session().ok_or(OperatorError::InvalidToken)?;
    let seen = operator_mfa::with_password(cx, current).await?;
    let names = [seen.email.as_str(), &seen.full_name];
    let new = new_password::choose(cx.app(), new, "/new_password", &names).await?;
    let passwords = &cx.app().ports.passwords;
    let caller = HashingCaller::new(CallerClass::Known, CallerGroup::Operator, cx.origin().address());
    if seen.password_expires_at.is_some() {
        let first = seen.password_hash.clone();
        first_password::refuse_same::<OperatorError>(cx.app(), &caller, first, &new).await?;
    }
    let hash = passwords.hash(&caller, new).await?;
    let mut work = cx.begin().await?;
    // Another change of the password since it was compared has ended the operator's tokens.
    let mut operator = operator_mfa::lock(work.as_mut(), &seen).await?;
    if session.factor_at.is_none() {
        refuse_with_factor(work.as_mut(), operator.id).await?;
    }
    operator.set_password(hash, None, cx.now());
    work.replace_password(&operator).await?;
    let ended = support_end::of_operator(cx, work.as_mut(), operator.id).await?;
    let details = json!({"operator": operator.id, "support_accesses_ended": ended.count()});
    work.commit(cx.record("operator.password_changed", None, details))
        .await?;
    ended.log(cx).await;
    Ok(OperatorLoggedIn {
        access_token: operator_login::token(cx.app(), &operator, session.factor_at, session.expires_at),
        expires_in: (session.expires_at - cx.now()).num_seconds(),
        operator,
    })
}

/// Refuses an operator who has a factor and logged in before it was added, so without it.
async fn refuse_with_factor(work: &mut dyn OperatorWork, id: OperatorId) -> Result<(), OperatorError> {
    let factor = work.factors().find_totp(id).await?;
    match factor.as_ref().is_some_and(OperatorTotp::is_confirmed) {
        true => Err(Refused::OperatorFactorRequired.into()),
        false => Ok(()),
    }
}
