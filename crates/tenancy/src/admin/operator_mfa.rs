//! The second factor of operators: enrollment, codes and removal. Apps, codes and lockout are those of users.

use serde_json::json;
use tenantry_domain::identity::{
    CallerClass, CallerGroup, Email, Guess, HashingCaller, Password, RecoveryCode, TotpFactor,
};
use tenantry_domain::kernel::{OperatorId, StoreError, SystemScope};
use tenantry_domain::operations::{
    AccountName, Operator, OperatorPermission, OperatorTotp, OperatorWork, PendingOperator,
};
use tenantry_domain::tenant::Refused;

use crate::OperatorCx;
use crate::admin::operator::{self, OperatorError};
use crate::admin::operator_guess;
use crate::audit::refusal::RefusedAction;
use crate::identity::lockout::{self, Guesser};
use crate::identity::mfa::{self, Enrollment, Pending};
use crate::identity::support_end;
use crate::identity::totp::{self, Apps};

/// Returns the address of the operator who is logged in; wrong codes are counted like failed logins to it.
///
/// # Errors
/// [`OperatorError::NotFound`], and those of the store.
pub async fn own_email(cx: &OperatorCx) -> Result<Email, OperatorError> {
    Ok(own(cx).await?.email)
}

/// Enrolls an app for the operator who is logged in, given the password. It takes the place of an enrollment that was not
/// confirmed. A stolen token is not enough: the factor of a thief would keep the operator out.
///
/// # Errors
/// [`OperatorError::WrongPassword`], [`OperatorError::Locked`], [`OperatorError::AlreadyEnabled`].
pub async fn enroll(cx: &OperatorCx, password: Password) -> Result<Enrollment, OperatorError> {
    cx.require(OperatorPermission::ManageOwnAccount)?;
    let seen = with_password(cx, password).await?;
    let mut work = cx.begin().await?;
    let operator = lock(work.as_mut(), &seen).await?;
    let enrollment = enroll_operator(cx, work.as_mut(), &operator).await?;
    commit(cx, work, "operator.mfa_enrolled", &operator).await?;
    Ok(enrollment)
}

/// Confirms the enrollment of the operator who is logged in with a code of the app, and returns recovery codes.
///
/// # Errors
/// [`OperatorError::NotEnrolled`], [`OperatorError::AlreadyEnabled`], [`OperatorError::WrongCode`].
pub async fn confirm(cx: &OperatorCx, code: &str) -> Result<Vec<RecoveryCode>, OperatorError> {
    cx.require(OperatorPermission::ManageOwnAccount)?;
    let seen = own(cx).await?;
    let mut work = cx.begin().await?;
    let operator = lock(work.as_mut(), &seen).await?;
    match confirm_operator(cx, work.as_mut(), &operator, code).await? {
        Some(codes) => {
            commit(cx, work, "operator.mfa_enabled", &operator).await?;
            Ok(codes)
        }
        None => Err(not_confirmed(cx, work, &operator).await?),
    }
}

/// Removes the second factor of the operator who is logged in, given the password and a code.
///
/// # Errors
/// [`OperatorError::FactorNeeded`], [`OperatorError::WrongPassword`], [`OperatorError::WrongCode`],
/// [`OperatorError::Locked`], [`OperatorError::NotEnrolled`].
pub async fn disable(cx: &OperatorCx, password: Password, code: &str) -> Result<(), OperatorError> {
    cx.require(OperatorPermission::ManageOwnAccount)?;
    let seen = with_password(cx, password).await?;
    if cx.app().policy.operator_mfa_required {
        return Err(OperatorError::FactorNeeded);
    }
    let (mut work, operator) = give_as(cx, &seen, code).await?;
    work.factors().delete_factor(operator.id).await?;
    commit(cx, work, "operator.mfa_disabled", &operator).await
}

/// Makes new recovery codes for the operator who is logged in, given a code. The old ones end.
///
/// # Errors
/// [`OperatorError::WrongCode`], [`OperatorError::Locked`], [`OperatorError::NotEnrolled`].
pub async fn renew_recovery_codes(cx: &OperatorCx, code: &str) -> Result<Vec<RecoveryCode>, OperatorError> {
    cx.require(OperatorPermission::ManageOwnAccount)?;
    let (mut work, operator) = give_own(cx, code).await?;
    let codes = new_recovery_codes(cx, work.as_mut(), &operator).await?;
    commit(cx, work, "operator.recovery_codes_renewed", &operator).await?;
    Ok(codes)
}

/// Removes the second factor of an operator who has lost it. Ends the operator's tokens, and the wait after wrong guesses, at once.
/// Operators disable their own with a code.
///
/// # Errors
/// [`OperatorError::NotFound`], [`OperatorError::NotEnrolled`], [`OperatorError::OwnFactor`].
pub async fn reset(cx: &OperatorCx, id: OperatorId) -> Result<Operator, OperatorError> {
    cx.require(OperatorPermission::ManageOperators)?;
    if cx.scope().operator() == Some(id) {
        return Err(OperatorError::OwnFactor);
    }
    let mut work = cx.begin().await?;
    operator::require_acting_owner(cx, work.as_mut()).await?;
    let operator = work.lock_operator(id).await?.ok_or(OperatorError::NotFound)?;
    if !work.factors().delete_factor(id).await? {
        return Err(OperatorError::NotEnrolled);
    }
    work.factors().end_tokens(id).await?;
    let account = AccountName::of(operator.email.as_str()).bytes();
    work.lockouts().delete_of(account).await?;
    let ended = support_end::of_operator(cx, work.as_mut(), id).await?;
    commit(cx, work, "operator.mfa_reset", &operator).await?;
    ended.log(cx).await;
    Ok(operator)
}

/// Seals the secrets of operators' apps with the present configured key. Returns how many were sealed anew, and the ids of the
/// operators whose secret no configured key opens.
///
/// # Errors
/// Those of the store.
pub async fn reseal(cx: &OperatorCx) -> Result<(usize, Vec<String>), StoreError> {
    let mut work = cx.begin().await?;
    let (mut resealed, mut unreadable) = (0, Vec::new());
    for mut factor in work.factors().list_totp_for_update().await? {
        let place = TotpFactor::place_of_operator(factor.owner);
        let apps = apps(cx, &place);
        if apps.is_current(&factor) {
            continue;
        }
        if apps.reseal(&mut factor) {
            work.factors().update_totp(&factor).await?;
            resealed += 1;
        } else {
            unreadable.push(factor.owner.to_string());
        }
    }
    if resealed > 0 {
        let details = json!({"resealed": resealed, "unreadable": unreadable});
        let record = cx.record("operator.factors_resealed", None, details);
        work.commit(record).await?;
    }
    Ok((resealed, unreadable))
}

/// What the right password of an operator leads to.
pub(crate) enum AtLogin {
    /// The operator is logged in, with a factor or without.
    Session(Option<&'static str>),
    /// A code is still missing.
    Pending(Pending),
    /// The code is wrong; whether a wait begins with it.
    WrongCode(bool),
}

/// What became of a code.
pub(crate) enum Given {
    /// It is accepted: `totp` or `recovery_code`.
    Right(&'static str),
    /// It is not; whether a wait begins with it. It is counted, so the transaction has to be committed.
    Wrong(bool),
}

/// What the right password of an operator, who is locked, leads to.
pub(crate) async fn at_login(
    cx: &OperatorCx,
    work: &mut dyn OperatorWork,
    operator: &Operator,
    guesser: Guesser,
    code: Option<&str>,
) -> Result<AtLogin, OperatorError> {
    let factor = work.factors().find_totp(operator.id).await?;
    let has_factor = factor.is_some_and(|factor| factor.is_confirmed());
    match code {
        Some(code) if has_factor => Ok(match give(cx, work, operator, guesser, code).await? {
            Given::Right(method) => AtLogin::Session(Some(method)),
            Given::Wrong(wait_begins) => AtLogin::WrongCode(wait_begins),
        }),
        Some(_) | None if has_factor => Ok(AtLogin::Pending(pending(cx, operator, mfa::CODES))),
        Some(_) | None if cx.app().policy.operator_mfa_required => {
            Ok(AtLogin::Pending(pending(cx, operator, mfa::ENROLLMENT)))
        }
        Some(_) | None => Ok(AtLogin::Session(None)),
    }
}

/// Takes a code of an operator's app, or a recovery code. The operator is locked, so that no code works twice and no two are
/// looked at together.
pub(crate) async fn give(
    cx: &OperatorCx,
    work: &mut dyn OperatorWork,
    operator: &Operator,
    guesser: Guesser,
    code: &str,
) -> Result<Given, OperatorError> {
    let factor = work.factors().find_totp(operator.id).await?;
    let factor = factor.filter(OperatorTotp::is_confirmed);
    let factor = factor.ok_or(OperatorError::NotEnrolled)?;
    let standing = lockout::look_at(work.lockouts(), Guess::Code, guesser, cx.now()).await?;
    if let Some(seconds) = standing.wait {
        return Err(OperatorError::Locked(seconds));
    }
    let accepted = match RecoveryCode::parse(code) {
        Some(recovery) => use_recovery_code(cx, work, operator, &recovery).await?,
        None => use_step(cx, work, factor, code).await?,
    };
    let Some(method) = accepted else {
        let wait_begins = lockout::fail_at(work.lockouts(), Guess::Code, guesser, cx.now()).await?;
        return Ok(Given::Wrong(wait_begins));
    };
    if standing.has_failed {
        lockout::succeed_at(work.lockouts(), Guess::Code, guesser).await?;
    }
    Ok(Given::Right(method))
}

/// Stores a new app of an operator, who is locked and has no confirmed one.
pub(crate) async fn enroll_operator(
    cx: &OperatorCx,
    work: &mut dyn OperatorWork,
    operator: &Operator,
) -> Result<Enrollment, OperatorError> {
    let present = work.factors().find_totp(operator.id).await?;
    if present.is_some_and(|factor| factor.is_confirmed()) {
        return Err(OperatorError::AlreadyEnabled);
    }
    let secret = cx.app().ports.one_time_codes.secret();
    let place = TotpFactor::place_of_operator(operator.id);
    let factor = apps(cx, &place).enroll(operator.id, &secret, cx.now());
    work.factors().replace_totp(&factor).await?;
    let uri = secret.uri(LABEL, operator.email.as_str());
    Ok(Enrollment { secret, uri })
}

/// Confirms the app of an operator, who is locked, and makes recovery codes; `None` when the code is not accepted.
pub(crate) async fn confirm_operator(
    cx: &OperatorCx,
    work: &mut dyn OperatorWork,
    operator: &Operator,
    code: &str,
) -> Result<Option<Vec<RecoveryCode>>, OperatorError> {
    let factor = work.factors().find_totp(operator.id).await?;
    let mut factor = factor.ok_or(OperatorError::NotEnrolled)?;
    if factor.is_confirmed() {
        return Err(OperatorError::AlreadyEnabled);
    }
    let place = TotpFactor::place_of_operator(operator.id);
    if !apps(cx, &place).confirm(&mut factor, code, cx.now()) {
        return Ok(None);
    }
    work.factors().update_totp(&factor).await?;
    Ok(Some(new_recovery_codes(cx, work, operator).await?))
}

/// Commits the count of a wrong code with its record, and returns the error for the caller.
pub(crate) async fn wrong_code(
    cx: &OperatorCx,
    work: Box<dyn OperatorWork>,
    operator: &Operator,
    wait_begins: bool,
) -> Result<OperatorError, StoreError> {
    let details = json!({"operator": operator.id, "wait_begins": wait_begins});
    work.commit(cx.record("operator.mfa_failed", None, details))
        .await?;
    Ok(OperatorError::WrongCode)
}

/// Ends an enrollment's transaction after a wrong code, and returns the error for the caller. Nothing is guessed with it: who
/// confirms an app has its secret.
pub(crate) async fn not_confirmed(
    cx: &OperatorCx,
    work: Box<dyn OperatorWork>,
    operator: &Operator,
) -> Result<OperatorError, StoreError> {
    drop(work);
    let details = json!({"operator": operator.id});
    operator_guess::refuse(cx, RefusedAction::SecondFactor, details).await?;
    Ok(OperatorError::WrongCode)
}

/// How apps call the accounts of operators.
const LABEL: &str = "Tenantry operators";

fn apps<'a>(cx: &'a OperatorCx, place: &'a str) -> Apps<'a> {
    let ports = &cx.app().ports;
    Apps {
        codes: ports.one_time_codes.as_ref(),
        seal: ports.seal.as_ref(),
        place,
        window: cx.app().policy.totp_window,
    }
}

fn pending(cx: &OperatorCx, operator: &Operator, methods: &'static [&'static str]) -> Pending {
    let waiting = PendingOperator {
        operator: operator.id,
        epoch: operator.epoch,
        began_at: cx.now(),
    };
    Pending {
        token: cx
            .app()
            .ports
            .seal
            .seal(PendingOperator::PLACE, &waiting.to_bytes()),
        expires_in: tenantry_domain::identity::MFA_CHALLENGE_SECONDS,
        methods,
    }
}

/// The operator who is logged in, as stored now: tokens that ended while the request was read, also by a slow body, open nothing, and
/// least of all a new token.
async fn own(cx: &OperatorCx) -> Result<Operator, OperatorError> {
    let because = SystemScope::because("an operator's own account");
    let id = cx.scope().operator().ok_or(OperatorError::NotFound)?;
    let found = cx.app().ports.operators.find(because, id).await?;
    let session = cx.scope().session();
    let is_live = |operator: &Operator| {
        let has_ended = session.is_some_and(|session| session.epoch != operator.epoch);
        operator.is_active && !has_ended
    };
    Ok(found.filter(is_live).ok_or(Refused::Forbidden)?)
}

/// The operator who is logged in, whose password was compared with the given one. One that has expired is a wrong one.
pub(crate) async fn with_password(cx: &OperatorCx, password: Password) -> Result<Operator, OperatorError> {
    let operator = own(cx).await?;
    let guesser = guesser(cx, &operator).await?;
    let standing = operator_guess::look(cx.app(), guesser).await?;
    if let Some(seconds) = standing.wait {
        operator_guess::record_locked(cx, Guess::Password, Some(&operator.email)).await?;
        return Err(OperatorError::Locked(seconds));
    }
    let caller = HashingCaller::new(CallerClass::Known, CallerGroup::Operator, cx.origin().address());
    let hash = Some(operator.password_hash.clone());
    let verified = cx.app().ports.passwords.verify(&caller, password, hash).await?;
    let has_expired = verified.is_right() && operator.password_has_expired(cx.now());
    if !verified.is_right() || has_expired {
        operator_guess::fail(cx.app(), guesser).await?;
        let details = match has_expired {
            true => json!({"operator": operator.id, "reason": "password_expired"}),
            false => json!({"operator": operator.id}),
        };
        operator_guess::refuse(cx, RefusedAction::PasswordConfirmation, details).await?;
        return Err(OperatorError::WrongPassword);
    }
    if standing.has_failed {
        operator_guess::succeed(cx.app(), guesser).await?;
    }
    Ok(operator)
}

/// A session makes no network a known one: it may be stolen.
async fn guesser(cx: &OperatorCx, operator: &Operator) -> Result<Guesser, StoreError> {
    operator::guesser_at(cx.app(), cx.origin().address(), &operator.email).await
}

/// Locks an operator, whose tokens and password must not have changed since they were seen.
pub(crate) async fn lock(work: &mut dyn OperatorWork, seen: &Operator) -> Result<Operator, OperatorError> {
    let operator = work.lock_operator(seen.id).await?;
    let same = |now: &Operator| now.is_active && now.epoch == seen.epoch;
    operator.filter(same).ok_or(OperatorError::InvalidToken)
}

/// Takes a code of the operator who is logged in; the transaction in which it counts as given.
pub(crate) async fn give_own(
    cx: &OperatorCx,
    code: &str,
) -> Result<(Box<dyn OperatorWork>, Operator), OperatorError> {
    let seen = own(cx).await?;
    give_as(cx, &seen, code).await
}

/// The same for an operator who was read before.
async fn give_as(
    cx: &OperatorCx,
    seen: &Operator,
    code: &str,
) -> Result<(Box<dyn OperatorWork>, Operator), OperatorError> {
    // Before the transaction, so that a request needs one connection at a time.
    let guesser = guesser(cx, seen).await?;
    let mut work = cx.begin().await?;
    let operator = lock(work.as_mut(), seen).await?;
    match give(cx, work.as_mut(), &operator, guesser, code).await {
        Ok(Given::Right(_)) => Ok((work, operator)),
        Ok(Given::Wrong(wait_begins)) => Err(wrong_code(cx, work, &operator, wait_begins).await?),
        Err(OperatorError::Locked(seconds)) => {
            drop(work);
            operator_guess::record_locked(cx, Guess::Code, Some(&operator.email)).await?;
            Err(OperatorError::Locked(seconds))
        }
        Err(error) => Err(error),
    }
}

async fn use_recovery_code(
    cx: &OperatorCx,
    work: &mut dyn OperatorWork,
    operator: &Operator,
    code: &RecoveryCode,
) -> Result<Option<&'static str>, StoreError> {
    let hash = code.hash_of_operator(operator.id);
    if !work.factors().use_recovery_code(operator.id, hash).await? {
        return Ok(None);
    }
    let details = json!({"operator": operator.id});
    let used = cx.record("operator.recovery_code_used", None, details);
    work.record(used).await?;
    Ok(Some("recovery_code"))
}

async fn use_step(
    cx: &OperatorCx,
    work: &mut dyn OperatorWork,
    mut factor: OperatorTotp,
    code: &str,
) -> Result<Option<&'static str>, StoreError> {
    let place = TotpFactor::place_of_operator(factor.owner);
    if !apps(cx, &place).use_step(&mut factor, code, cx.now()) {
        return Ok(None);
    }
    work.factors().update_totp(&factor).await?;
    Ok(Some("totp"))
}

async fn new_recovery_codes(
    cx: &OperatorCx,
    work: &mut dyn OperatorWork,
    operator: &Operator,
) -> Result<Vec<RecoveryCode>, StoreError> {
    let codes = totp::new_recovery_codes(cx.app().ports.one_time_codes.as_ref());
    let hashes: Vec<_> = codes
        .iter()
        .map(|code| code.hash_of_operator(operator.id))
        .collect();
    work.factors()
        .replace_recovery_codes(operator.id, &hashes)
        .await?;
    Ok(codes)
}

async fn commit(
    cx: &OperatorCx,
    work: Box<dyn OperatorWork>,
    action: &'static str,
    operator: &Operator,
) -> Result<(), OperatorError> {
    let record = cx.record(action, None, json!({"operator": operator.id}));
    Ok(work.commit(record).await?)
}
