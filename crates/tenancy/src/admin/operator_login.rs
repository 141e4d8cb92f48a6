//! Logins of operators: the password, then a code where the operator has a second factor or needs one.

use std::sync::Arc;

use chrono::Duration;
use serde_json::json;
use tenantry_domain::identity::{
    CallerClass, CallerGroup, Email, Guess, HashingCaller, Password, PasswordHash, RecoveryCode, TokenError,
};
use tenantry_domain::kernel::{Network, RequestId, StoreError, SystemScope, Time};
use tenantry_domain::operations::{
    Operator, OperatorClaims, OperatorPermission, OperatorScope, OperatorWork, PendingOperator,
};
use tenantry_domain::tenant::Denied;

use crate::admin::operator::{self, OperatorError};
use crate::admin::operator_guess;
use crate::admin::operator_mfa::{self, AtLogin, Given};
use crate::audit::refusal::RefusedAction;
use crate::identity::lockout::{self, Guesser, Standing};
use crate::identity::mfa::Enrollment;
use crate::identity::password;
use crate::identity::support_end::{self, EndedAccesses};
use crate::{OperatorCx, Origin, Tenancy};

/// The answer to an operator's successful login.
#[derive(Debug, Clone)]
pub struct OperatorLoggedIn {
    /// The access token (JWT).
    pub access_token: String,
    /// How long it lives, in seconds.
    pub expires_in: i64,
    /// The operator who is logged in.
    pub operator: Operator,
}

/// A login that was finished by enrolling a second factor.
#[derive(Debug, Clone)]
pub struct OperatorEnrolled {
    /// The token, and whose it is.
    pub login: OperatorLoggedIn,
    /// Ten codes, shown once, each good for one login without the app.
    pub recovery_codes: Vec<RecoveryCode>,
}

/// From where, and in which request, a caller without a token acts.
#[derive(Debug, Clone)]
pub struct Visit {
    /// From where the request came.
    pub origin: Origin,
    /// The id of the request.
    pub request: RequestId,
}

/// Logs an operator in. An unknown address costs the same time as a wrong password, and both are recorded. After wrong ones in
/// a row the address waits, known or unknown.
///
/// # Errors
/// [`OperatorError::InvalidCredentials`], [`OperatorError::FactorRequired`], [`OperatorError::WrongCode`],
/// [`OperatorError::Locked`], and those of the store.
pub async fn login(
    app: &Arc<Tenancy>,
    visit: Visit,
    email: &str,
    password: Password,
    code: Option<&str>,
) -> Result<OperatorLoggedIn, OperatorError> {
    let claim = claim(app, &visit.origin, email).await?;
    if let Some(seconds) = claim.standing.wait {
        let cx = as_guest(app, visit);
        operator_guess::record_locked(&cx, Guess::Password, claim.email.as_ref()).await?;
        return Err(OperatorError::Locked(seconds));
    }
    let passwords = app.ports.passwords.as_ref();
    let operator = claim.operator.clone().filter(|operator| operator.is_active);
    let hash = operator.as_ref().map(|operator| operator.password_hash.clone());
    let class = CallerClass::known_if(claim.guesser.is_known());
    let caller = HashingCaller::new(class, CallerGroup::Operator, visit.origin.address());
    let verified = passwords.verify(&caller, password.clone(), hash).await?;
    let proven = operator.filter(|_| verified.is_right());
    let now = app.ports.clock.now();
    let has_expired = proven
        .as_ref()
        .is_some_and(|operator| operator.password_has_expired(now));
    let admitted = match proven.filter(|_| !has_expired) {
        Some(operator) => admit(app, operator, visit.request.clone()).await?,
        None => None,
    };
    let Some((scope, login)) = admitted else {
        return Err(refused(app, visit, &claim, has_expired).await?);
    };
    let cx = OperatorCx::new(Arc::clone(app), scope, visit.origin);
    let renewed = password::renew(passwords, &caller, verified, password).await;
    open(&cx, login, &claim, renewed, code).await
}

/// Reads a token of a login that waits for its second factor; `None` for what is not one of ours.
pub fn read_token(app: &Tenancy, token: &[u8]) -> Option<PendingOperator> {
    let plain = app.ports.seal.open(PendingOperator::PLACE, token)?;
    PendingOperator::from_bytes(&plain)
}

/// Returns the address of the operator whose login waits; its wrong codes are counted like wrong passwords.
///
/// # Errors
/// [`OperatorError::InvalidToken`] when the login does not wait any more.
pub async fn account_of(app: &Tenancy, pending: PendingOperator) -> Result<Email, OperatorError> {
    Ok(waiting(app, pending).await?.email)
}

/// Finishes a login with a code of the second factor. It and the logins that began before it are over then.
///
/// # Errors
/// [`OperatorError::InvalidToken`], [`OperatorError::WrongCode`], [`OperatorError::Locked`].
pub async fn verify(
    app: &Arc<Tenancy>,
    visit: Visit,
    pending: PendingOperator,
    code: &str,
) -> Result<OperatorLoggedIn, OperatorError> {
    let Entered {
        cx,
        login,
        mut work,
        guesser,
    } = enter(app, visit, pending).await?;
    let email = &login.operator.email;
    match operator_mfa::give(&cx, work.as_mut(), &login.operator, guesser, code).await {
        Ok(Given::Right(method)) => finish(&cx, work, login, Some(method)).await,
        Ok(Given::Wrong(begins)) => Err(operator_mfa::wrong_code(&cx, work, &login.operator, begins).await?),
        // The factor was removed in between.
        Err(OperatorError::NotEnrolled) => Err(OperatorError::InvalidToken),
        Err(error) => {
            drop(work);
            Err(recorded(&cx, error, email).await?)
        }
    }
}

/// Enrolls an app for the operator of a waiting login, who needs a second factor.
///
/// # Errors
/// [`OperatorError::InvalidToken`], [`OperatorError::AlreadyEnabled`].
pub async fn enroll(
    app: &Arc<Tenancy>,
    visit: Visit,
    pending: PendingOperator,
) -> Result<Enrollment, OperatorError> {
    let entered = enter(app, visit, pending).await?;
    let (cx, login, mut work) = (entered.cx, entered.login, entered.work);
    let enrollment = operator_mfa::enroll_operator(&cx, work.as_mut(), &login.operator).await?;
    let details = json!({"operator": login.operator.id});
    work.commit(cx.record("operator.mfa_enrolled", None, details))
        .await?;
    Ok(enrollment)
}

/// Confirms the enrollment of the operator of a waiting login, and finishes the login.
///
/// # Errors
/// [`OperatorError::InvalidToken`], [`OperatorError::WrongCode`], [`OperatorError::NotEnrolled`],
/// [`OperatorError::AlreadyEnabled`].
pub async fn confirm(
    app: &Arc<Tenancy>,
    visit: Visit,
    pending: PendingOperator,
    code: &str,
) -> Result<OperatorEnrolled, OperatorError> {
    let entered = enter(app, visit, pending).await?;
    let (cx, login, mut work) = (entered.cx, entered.login, entered.work);
    let operator = &login.operator;
    let Some(recovery_codes) = operator_mfa::confirm_operator(&cx, work.as_mut(), operator, code).await?
    else {
        return Err(operator_mfa::not_confirmed(&cx, work, operator).await?);
    };
    let details = json!({"operator": operator.id});
    work.record(cx.record("operator.mfa_enabled", None, details))
        .await?;
    let login = finish(&cx, work, login, Some("enrollment")).await?;
    Ok(OperatorEnrolled {
        login,
        recovery_codes,
    })
}

/// Gives an operator who is logged in a token that says that the second factor was given now. It expires when the present one does,
/// so a code alone does not extend a login. With `rotate`, all other tokens of the operator and the accesses to tenants end.
///
/// # Errors
/// [`OperatorError::WrongCode`], [`OperatorError::Locked`], [`OperatorError::NotEnrolled`].
pub async fn step_up(cx: &OperatorCx, code: &str, rotate: bool) -> Result<OperatorLoggedIn, OperatorError> {
    cx.require(OperatorPermission::ManageOwnAccount)?;
    let session = cx.scope().session().ok_or(OperatorError::InvalidToken)?;
    let (mut work, mut operator) = operator_mfa::give_own(cx, code).await?;
    let mut ended = EndedAccesses::NONE;
    if rotate {
        work.factors().end_tokens(operator.id).await?;
        operator.epoch += 1;
        ended = support_end::of_operator(cx, work.as_mut(), operator.id).await?;
    }
    let details =
        json!({"operator": operator.id, "rotated": rotate, "support_accesses_ended": ended.count()});
    work.commit(cx.record("operator.stepped_up", None, details))
        .await?;
    ended.log(cx).await;
    let access_token = token(cx.app(), &operator, Some(cx.now()), session.expires_at);
    Ok(OperatorLoggedIn {
        access_token,
        expires_in: (session.expires_at - cx.now()).num_seconds(),
        operator,
    })
}

/// What is known of a login before the password is compared.
struct Claim {
    email: Option<Email>,
    operator: Option<Operator>,
    guesser: Guesser,
    standing: Standing,
}

/// Looks up who wants to log in. What is no address has no account; an unknown address costs the same as a known one.
async fn claim(app: &Tenancy, origin: &Origin, typed: &str) -> Result<Claim, StoreError> {
    let because = SystemScope::because("an operator logs in");
    let email = Email::parse(typed, "/email").ok();
    let network = Network::site(origin.address());
    let (operator, is_known) = match &email {
        Some(email) => (
            app.ports.operators.find_to_log_in(because, email).await?,
            operator::has_logged_in_from(app, email, network).await?,
        ),
        None => (None, false),
    };
    let guesser = Guesser::at(origin.address(), typed, is_known);
    let standing = operator_guess::look(app, guesser).await?;
    Ok(Claim {
        email,
        operator,
        guesser,
        standing,
    })
}

/// Counts and records a login that is refused, and returns the error for the caller. Only the log tells an expired password from a wrong
/// one: a stranger must not learn that it was right.
async fn refused(
    app: &Arc<Tenancy>,
    visit: Visit,
    claim: &Claim,
    has_expired: bool,
) -> Result<OperatorError, StoreError> {
    operator_guess::fail(app, claim.guesser).await?;
    // What was typed may be a password in the wrong box: only something that is an address is kept.
    let details = match has_expired {
        true => json!({"email": claim.email, "reason": "password_expired"}),
        false => json!({"email": claim.email}),
    };
    operator_guess::refuse(&as_guest(app, visit), RefusedAction::OperatorLogin, details).await?;
    Ok(OperatorError::InvalidCredentials)
}

/// Logs in an operator whose password was right, or leaves the login waiting for a code.
async fn open(
    cx: &OperatorCx,
    login: OperatorLoggedIn,
    claim: &Claim,
    renewed: Option<PasswordHash>,
    code: Option<&str>,
) -> Result<OperatorLoggedIn, OperatorError> {
    let mut work = cx.begin().await?;
    let operator = work.lock_operator(login.operator.id).await?;
    let same = |now: &Operator| now.is_active && now.epoch == login.operator.epoch;
    let operator = operator.filter(same).ok_or(OperatorError::InvalidCredentials)?;
    if let Some(renewed) = renewed {
        work.renew_hash(&login.operator, &renewed).await?;
    }
    if claim.standing.has_failed {
        lockout::succeed_at(work.lockouts(), Guess::Password, claim.guesser).await?;
    }
    match operator_mfa::at_login(cx, work.as_mut(), &operator, claim.guesser, code).await {
        Ok(AtLogin::Session(method)) => finish(cx, work, login, method).await,
        Ok(AtLogin::Pending(pending)) => {
            let details = json!({"methods": pending.methods});
            work.commit(cx.record("operator.mfa_required", None, details))
                .await?;
            Err(OperatorError::FactorRequired(pending))
        }
        Ok(AtLogin::WrongCode(begins)) => Err(operator_mfa::wrong_code(cx, work, &operator, begins).await?),
        Err(error) => {
            drop(work);
            Err(recorded(cx, error, &operator.email).await?)
        }
    }
}

/// Commits a login, with the factor that was given.
async fn finish(
    cx: &OperatorCx,
    mut work: Box<dyn OperatorWork>,
    mut login: OperatorLoggedIn,
    method: Option<&'static str>,
) -> Result<OperatorLoggedIn, OperatorError> {
    if method.is_some() {
        work.factors().finish_login(login.operator.id, cx.now()).await?;
        let expires_at = cx.now() + Duration::seconds(login.expires_in);
        login.access_token = token(cx.app(), &login.operator, Some(cx.now()), expires_at);
    }
    let details = json!({"factor": method});
    work.commit(cx.record("operator.logged_in", None, details))
        .await?;
    Ok(login)
}

/// The error, once a code that was not looked at is recorded.
async fn recorded(cx: &OperatorCx, error: OperatorError, email: &Email) -> Result<OperatorError, StoreError> {
    if let OperatorError::Locked(_) = &error {
        operator_guess::record_locked(cx, Guess::Code, Some(email)).await?;
    }
    Ok(error)
}

/// The operator of a login that still waits.
async fn waiting(app: &Tenancy, pending: PendingOperator) -> Result<Operator, OperatorError> {
    let because = SystemScope::because("an operator finishes a login");
    let found = app.ports.operators.find(because, pending.operator).await?;
    let now = app.ports.clock.now();
    let found = found.filter(|operator| pending.is_waiting(operator, now));
    found.ok_or(OperatorError::InvalidToken)
}

/// A login that still waits, with a transaction in which its operator is locked.
struct Entered {
    cx: OperatorCx,
    /// It must not leave before a code is accepted.
    login: OperatorLoggedIn,
    work: Box<dyn OperatorWork>,
    guesser: Guesser,
}

/// Enters a login that still waits.
async fn enter(app: &Arc<Tenancy>, visit: Visit, pending: PendingOperator) -> Result<Entered, OperatorError> {
    let operator = waiting(app, pending).await?;
    // Before the transaction, so that a login needs one connection at a time.
    let guesser = operator::guesser_at(app, visit.origin.address(), &operator.email).await?;
    let admitted = admit(app, operator, visit.request).await?;
    let (scope, login) = admitted.ok_or(OperatorError::InvalidToken)?;
    let cx = OperatorCx::new(Arc::clone(app), scope, visit.origin);
    let mut work = cx.begin().await?;
    let locked = work.lock_operator(pending.operator).await?;
    let locked = locked.filter(|operator| pending.is_waiting(operator, cx.now()));
    let operator = locked.ok_or(OperatorError::InvalidToken)?;
    Ok(Entered {
        cx,
        login: OperatorLoggedIn { operator, ..login },
        work,
        guesser,
    })
}

fn as_guest(app: &Arc<Tenancy>, visit: Visit) -> OperatorCx {
    let because = SystemScope::because("an operator logs in");
    let scope = app.ports.operator_gate.system(because, visit.request);
    OperatorCx::new(Arc::clone(app), scope, visit.origin)
}

/// An access token of an operator.
pub(crate) fn token(app: &Tenancy, operator: &Operator, factor_at: Option<Time>, expires_at: Time) -> String {
    app.ports.operator_tokens.sign(&OperatorClaims {
        operator: operator.id,
        epoch: operator.epoch,
        factor_at,
        issued_at: app.ports.clock.now(),
        expires_at,
    })
}

/// A token for an operator whose password was right, and the scope that it leads to: the password was verified outside
/// of any transaction, so the gate looks at the operator once more. `None` when it refuses.
async fn admit(
    app: &Arc<Tenancy>,
    operator: Operator,
    request: RequestId,
) -> Result<Option<(OperatorScope, OperatorLoggedIn)>, StoreError> {
    let expires_in = app.ports.operator_tokens.lifetime_seconds();
    let expires_at = app.ports.clock.now() + Duration::seconds(expires_in);
    let access_token = token(app, &operator, None, expires_at);
    match app.ports.operator_gate.bearer(&access_token, request).await {
        Ok(scope) => {
            let login = OperatorLoggedIn {
                access_token,
                expires_in,
                operator,
            };
            Ok(Some((scope, login)))
        }
        Err(Denied::Store(error)) => Err(error),
        Err(Denied::Token(TokenError::Invalid | TokenError::Expired))
        | Err(
            Denied::Revoked
            | Denied::ApiKey(_)
            | Denied::Address
            | Denied::TenantNotFound
            | Denied::TenantGone
            | Denied::LeaseLost,
        ) => Ok(None),
    }
}
