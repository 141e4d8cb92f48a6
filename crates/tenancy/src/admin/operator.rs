//! Operators of the platform: who they are, and the context they do things in.

use std::net::IpAddr;

use serde_json::json;
use tenantry_domain::identity::{
    CallerClass, CallerGroup, Email, HashingCaller, Password, PasswordError, PasswordHash,
};
use tenantry_domain::kernel::{
    Constraint, Invalid, Network, OperatorId, Page, PageRequest, StoreError, SystemScope,
};
use tenantry_domain::operations::{
    AccountName, Operator, OperatorChanges, OperatorPermission, OperatorRole, OperatorWork,
};
use tenantry_domain::tenant::Refused;

use crate::identity::first_password;
use crate::identity::known_network;
use crate::identity::lockout::Guesser;
use crate::identity::mfa::Pending;
use crate::identity::new_password;
use crate::identity::support_end::{self, EndedAccesses};
use crate::operations::idempotency::OperatorRequest;
use crate::{OperatorCx, Precondition, Stale, Tenancy};

/// An operator with a new password, and that password when it was generated.
#[derive(Debug, Clone)]
pub struct CreatedOperator {
    /// The stored operator.
    pub operator: Operator,
    /// The password, when it was generated; it is never shown again.
    pub generated_password: Option<Password>,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// Input that does not hold.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// No such active operator, or another password; which of them is not told.
    #[error("there is no active operator with this address and password")]
    InvalidCredentials,
    /// The password is right, and a code of the second factor is missing.
    #[error("the login needs a second factor")]
    FactorRequired(Pending),
    /// The login that a token names has ended, or the token is not one of ours.
    #[error("the login no longer waits for a second factor")]
    InvalidToken,
    /// The code is wrong, out of its time, or was used before.
    #[error("the code is not accepted")]
    WrongCode,
    /// The password of an operator who is logged in is wrong.
    #[error("the password is wrong")]
    WrongPassword,
    /// The account waits for so many seconds after wrong passwords or codes.
    #[error("the account waits for {0} seconds")]
    Locked(i64),
    /// The operator has a second factor.
    #[error("the operator has a second factor already")]
    AlreadyEnabled,
    /// Operators need a second factor on this server.
    #[error("operators need a second factor")]
    FactorNeeded,
    /// The operator has no second factor, or has not enrolled one.
    #[error("the operator has no second factor")]
    NotEnrolled,
    /// No such operator.
    #[error("there is no such operator")]
    NotFound,
    /// The operator's role does not allow it, or the second factor was given too long ago.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The operator has changed since the version that the caller names.
    #[error(transparent)]
    Stale(#[from] Stale),
    /// Operators disable their own second factor with a code.
    #[error("operators disable their own second factor with a code")]
    OwnFactor,
    /// The change would leave no active owner.
    #[error("the operator is the last active owner")]
    LastOwner,
    /// Another operator has that address.
    #[error("the address is taken")]
    EmailTaken,
    /// Passwords cannot be hashed now.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}

impl From<StoreError> for OperatorError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unique(Constraint::OperatorEmail) => Self::EmailTaken,
            other => Self::Store(other),
        }
    }
}

/// Whether the operator with that mail address has lately logged in from this network. An unknown operator has not, and
/// costs the same.
///
/// # Errors
/// Those of the store.
pub async fn is_known_network(
    app: &Tenancy,
    email: &str,
    network: Option<Network>,
) -> Result<bool, StoreError> {
    let Ok(email) = Email::parse(email, "/email") else {
        return Ok(false);
    };
    has_logged_in_from(app, &email, network).await
}

/// A caller at an address who guesses at the account of an operator.
pub(crate) async fn guesser_at(
    app: &Tenancy,
    address: Option<IpAddr>,
    email: &Email,
) -> Result<Guesser, StoreError> {
    let is_known = has_logged_in_from(app, email, Network::site(address)).await?;
    Ok(Guesser::at(address, email.as_str(), is_known))
}

pub(crate) async fn has_logged_in_from(
    app: &Tenancy,
    email: &Email,
    network: Option<Network>,
) -> Result<bool, StoreError> {
    let because = SystemScope::because("an operator logs in");
    let since = app.ports.clock.now() - known_network::KNOWN_FOR;
    let operators = &app.ports.operators;
    let addresses = operators.login_addresses(because, email, since).await?;
    Ok(known_network::is_among(network, &addresses))
}

/// A page of the operators, newest first.
///
/// # Errors
/// [`OperatorError`].
pub async fn list(cx: &OperatorCx, page: PageRequest) -> Result<Page<Operator>, OperatorError> {
    cx.require(OperatorPermission::ReadOperators)?;
    let mut work = cx.begin().await?;
    let operators = work.operators(page).await?;
    work.commit(cx.record("operators.listed", None, json!({})))
        .await?;
    Ok(operators)
}

/// One operator, active or not.
///
/// # Errors
/// [`OperatorError::NotFound`], and those of the store.
pub async fn get(cx: &OperatorCx, id: OperatorId) -> Result<Operator, OperatorError> {
    cx.require(OperatorPermission::ReadOperators)?;
    let mut work = cx.begin().await?;
    let operator = work.lock_operator(id).await?;
    work.commit(cx.record("operator.read", None, json!({"operator": id})))
        .await?;
    operator.ok_or(OperatorError::NotFound)
}

/// The fields of an operator that its creator decides.
#[derive(Debug, Clone)]
pub struct NewOperator {
    /// Unique among all operators.
    pub email: String,
    /// 1 to 120 characters.
    pub full_name: String,
    /// What the operator may do.
    pub role: OperatorRole,
    /// The password; generated when absent.
    pub password: Option<String>,
    /// Whether the operator chose that password. A password that another operator chose, or that is generated, expires.
    pub is_own_password: bool,
}

/// Adds an operator, with a generated password unless one is given.
///
/// # Errors
/// [`OperatorError`].
pub async fn create(cx: &OperatorCx, new: NewOperator) -> Result<CreatedOperator, OperatorError> {
    Ok(create_once(cx, None, new).await?.0)
}

/// As [`create`], once for requests with the same idempotency key within a day: the second value says whether this is the result of
/// an earlier one. The generated password is with the first result only, since it is stored nowhere.
///
/// # Errors
/// [`OperatorError`]; [`KeyTaken::Reused`](tenantry_domain::kernel::KeyTaken::Reused) when the key identifies another request.
pub async fn create_once(
    cx: &OperatorCx,
    request: Option<&OperatorRequest>,
    new: NewOperator,
) -> Result<(CreatedOperator, bool), OperatorError> {
    cx.require(OperatorPermission::ManageOperators)?;
    let ports = &cx.app().ports;
    let email = Email::parse(&new.email, "/email")?;
    let is_own = new.is_own_password && new.password.is_some();
    let password = password_of(cx, &email, &new.full_name, new.password).await?;
    let id = OperatorId::next(ports.ids.as_ref());
    let mut operator = Operator::new(id, email, &new.full_name, new.role, password.hash, cx.now())?;
    operator.password_expires_at = (!is_own).then(|| cx.now() + first_password::lifetime_of_operators());
    let mut work = cx.begin().await?;
    require_acting_owner(cx, work.as_mut()).await?;
    // The owners are locked, so two requests with one key run one after the other.
    if let Some(created) = created_before(cx, work.as_mut(), request).await? {
        return Ok((created, true));
    }
    work.insert(&operator).await?;
    let mut details = json!({"operator": operator});
    if let Some(request) = request {
        details["idempotency"] = request.to_details();
    }
    work.commit(cx.record("operator.created", None, details)).await?;
    let created = CreatedOperator {
        operator,
        generated_password: password.generated,
    };
    Ok((created, false))
}

async fn created_before(
    cx: &OperatorCx,
    work: &mut dyn OperatorWork,
    request: Option<&OperatorRequest>,
) -> Result<Option<CreatedOperator>, OperatorError> {
    let Some(request) = request else { return Ok(None) };
    let Some(details) = cx.done_before(work, request).await? else {
        return Ok(None);
    };
    let id = details["operator"]["id"].as_str().and_then(|id| id.parse().ok());
    let id: OperatorId = id.ok_or(OperatorError::NotFound)?;
    let operator = work.lock_operator(id).await?.ok_or(OperatorError::NotFound)?;
    Ok(Some(CreatedOperator {
        operator,
        generated_password: None,
    }))
}

/// Changes the name, the role or the state of an operator. Another role and a deactivation end the accesses to tenants. The last active
/// owner keeps its role and stays active; a command on the server may change it, as it may add another one. A change that changes nothing, such as a repeated deactivation, leaves the version and
/// no record.
///
/// # Errors
/// [`OperatorError::LastOwner`], [`OperatorError::NotFound`], [`OperatorError::Stale`], and those of the store.
pub async fn change(
    cx: &OperatorCx,
    id: OperatorId,
    when: &Precondition,
    changes: &OperatorChanges,
) -> Result<Operator, OperatorError> {
    cx.require(OperatorPermission::ManageOperators)?;
    let mut work = cx.begin().await?;
    let owners = require_acting_owner(cx, work.as_mut()).await?;
    let before = work.lock_operator(id).await?.ok_or(OperatorError::NotFound)?;
    when.check(before.version)?;
    let after = before.changed(changes, cx.now())?;
    let leaves_none = owners == [id] && !after.is_acting_owner();
    if leaves_none && cx.scope().operator().is_some() {
        return Err(OperatorError::LastOwner);
    }
    if after == before {
        // Nothing is changed, so nothing is recorded.
        return Ok(before);
    }
    work.update(&after).await?;
    let ended = if after.is_active && after.role == before.role {
        EndedAccesses::NONE
    } else {
        support_end::of_operator(cx, work.as_mut(), id).await?
    };
    let action = match (before.is_active, after.is_active) {
        (true, false) => "operator.deactivated",
        (false, true) => "operator.activated",
        (true, true) | (false, false) => "operator.updated",
    };
    let details = json!({"operator": after, "before": before, "support_accesses_ended": ended.count()});
    work.commit(cx.record(action, None, details)).await?;
    ended.log(cx).await;
    Ok(after)
}

/// Ends all tokens of an operator at once, the logins that wait for a second factor, and the accesses to tenants.
///
/// # Errors
/// [`OperatorError::NotFound`], and those of the store.
pub async fn end_sessions(cx: &OperatorCx, id: OperatorId) -> Result<(), OperatorError> {
    cx.require(OperatorPermission::ManageOperators)?;
    let mut work = cx.begin().await?;
    require_acting_owner(cx, work.as_mut()).await?;
    work.lock_operator(id).await?.ok_or(OperatorError::NotFound)?;
    work.factors().end_tokens(id).await?;
    let ended = support_end::of_operator(cx, work.as_mut(), id).await?;
    let details = json!({"operator": id, "support_accesses_ended": ended.count()});
    work.commit(cx.record("operator.sessions_ended", None, details))
        .await?;
    ended.log(cx).await;
    Ok(())
}

/// Replaces an operator's password, with a generated one unless one is given; it expires, since the operator did not choose it. Ends all
/// of the operator's tokens, and the wait after wrong guesses, at once.
///
/// # Errors
/// [`OperatorError`].
pub async fn reset_password(
    cx: &OperatorCx,
    id: OperatorId,
    password: Option<String>,
) -> Result<CreatedOperator, OperatorError> {
    cx.require(OperatorPermission::ManageOperators)?;
    let because = SystemScope::because("an operator's password is reset");
    let found = cx.app().ports.operators.find(because, id).await?;
    let seen = found.ok_or(OperatorError::NotFound)?;
    let new = password_of(cx, &seen.email, &seen.full_name, password).await?;
    let mut work = cx.begin().await?;
    require_acting_owner(cx, work.as_mut()).await?;
    let mut operator = work.lock_operator(id).await?.ok_or(OperatorError::NotFound)?;
    let expires_at = cx.now() + first_password::lifetime_of_operators();
    operator.set_password(new.hash, Some(expires_at), cx.now());
    work.replace_password(&operator).await?;
    let account = AccountName::of(operator.email.as_str()).bytes();
    work.lockouts().delete_of(account).await?;
    let ended = support_end::of_operator(cx, work.as_mut(), id).await?;
    let details = json!({"operator": id, "support_accesses_ended": ended.count()});
    work.commit(cx.record("operator.password_reset", None, details))
        .await?;
    ended.log(cx).await;
    Ok(CreatedOperator {
        operator,
        generated_password: new.generated,
    })
}

/// The id of the operator with a mail address, for commands.
///
/// # Errors
/// [`OperatorError::NotFound`], and those of the store.
pub async fn id_of(cx: &OperatorCx, email: &str) -> Result<OperatorId, OperatorError> {
    let because = SystemScope::because("a command names an operator");
    let email = Email::parse(email, "/email")?;
    let found = cx.app().ports.operators.find_by_email(because, &email).await?;
    Ok(found.ok_or(OperatorError::NotFound)?.id)
}

/// Deactivates an operator and ends their tokens; for commands.
///
/// # Errors
/// [`OperatorError`].
pub async fn deactivate(cx: &OperatorCx, email: &str) -> Result<Operator, OperatorError> {
    set_active(cx, email, false).await
}

/// Activates an operator who was deactivated; for commands. Password and second factor are the former ones; former tokens stay
/// invalid.
///
/// # Errors
/// [`OperatorError`].
pub async fn activate(cx: &OperatorCx, email: &str) -> Result<Operator, OperatorError> {
    set_active(cx, email, true).await
}

async fn set_active(cx: &OperatorCx, email: &str, is_active: bool) -> Result<Operator, OperatorError> {
    let id = id_of(cx, email).await?;
    let changes = OperatorChanges {
        is_active: Some(is_active),
        ..OperatorChanges::default()
    };
    change(cx, id, &Precondition::None, &changes).await
}

/// Locks the active owners, among whom the caller still has to be: two owners who remove each other at the same time are serialized,
/// and the second is refused. The system passes. Returns the ids of the owners.
pub(crate) async fn require_acting_owner(
    cx: &OperatorCx,
    work: &mut dyn OperatorWork,
) -> Result<Vec<OperatorId>, OperatorError> {
    let owners = work.lock_owners().await?;
    match cx.scope().operator() {
        Some(caller) if !owners.contains(&caller) => Err(Refused::Forbidden.into()),
        Some(_) | None => Ok(owners),
    }
}

/// A password for an operator, hashed.
struct NewPassword {
    hash: PasswordHash,
    /// The password, when it was generated.
    generated: Option<Password>,
}

/// The password that was given, held to the rules, or else a generated one.
async fn password_of(
    cx: &OperatorCx,
    email: &Email,
    full_name: &str,
    given: Option<String>,
) -> Result<NewPassword, OperatorError> {
    let passwords = &cx.app().ports.passwords;
    let names = [email.as_str(), full_name];
    let chosen = new_password::choose_given(cx.app(), given, "/password", &names).await?;
    let password = chosen.clone().unwrap_or_else(|| passwords.generate());
    let caller = HashingCaller::new(CallerClass::Known, CallerGroup::Operator, cx.origin().address());
    let hash = passwords.hash(&caller, password.clone()).await?;
    let generated = chosen.is_none().then_some(password);
    Ok(NewPassword { hash, generated })
}
