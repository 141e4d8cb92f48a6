//! Operators of the platform: who they are, and the context they do things in.

use std::net::IpAddr;

use serde_json::json;
use tenantry_domain::identity::{
    CallerClass, CallerGroup, Email, HashingCaller, Password, PasswordError, PasswordHash,
};
use tenantry_domain::kernel::{Constraint, Invalid, Network, OperatorId, StoreError, SystemScope};
use tenantry_domain::operations::{AccountName, Operator};

use crate::identity::known_network;
use crate::identity::lockout::Guesser;
use crate::identity::mfa::Pending;
use crate::{OperatorCx, Tenancy};

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

/// Adds an operator, with a generated password unless one is given.
///
/// # Errors
/// [`OperatorError`].
pub async fn create(
    cx: &OperatorCx,
    email: &str,
    full_name: &str,
    password: Option<String>,
) -> Result<CreatedOperator, OperatorError> {
    let ports = &cx.app().ports;
    let email = Email::parse(email, "/email")?;
    let new = password_of(cx, &email, full_name, password).await?;
    let id = OperatorId::next(ports.ids.as_ref());
    let operator = Operator::new(id, email, full_name, new.hash, cx.now())?;
    let mut work = cx.begin().await?;
    work.insert(&operator).await?;
    let event = cx.record("operator.created", None, json!({"operator": operator}));
    work.commit(event).await?;
    Ok(CreatedOperator {
        operator,
        generated_password: new.generated,
    })
}

/// Replaces an operator's password, with a generated one unless one is given. Ends all of the operator's tokens, and the wait
/// after wrong guesses, at once.
///
/// # Errors
/// [`OperatorError`].
pub async fn reset_password(
    cx: &OperatorCx,
    email: &str,
    password: Option<String>,
) -> Result<CreatedOperator, OperatorError> {
    let because = SystemScope::because("an operator's password is reset");
    let email = Email::parse(email, "/email")?;
    let found = cx.app().ports.operators.find_by_email(because, &email).await?;
    let operator = found.ok_or(OperatorError::NotFound)?;
    let new = password_of(cx, &email, &operator.full_name, password).await?;
    let mut work = cx.begin().await?;
    work.replace_password(operator.id, &new.hash, cx.now()).await?;
    let account = AccountName::of(email.as_str()).bytes();
    work.lockouts().delete_of(account).await?;
    let event = cx.record("operator.password_reset", None, json!({"operator": operator.id}));
    work.commit(event).await?;
    Ok(CreatedOperator {
        operator,
        generated_password: new.generated,
    })
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
    let chosen = given
        .map(|text| passwords.choose(text, "/password", &[email.as_str(), full_name]))
        .transpose()?;
    let password = chosen.clone().unwrap_or_else(|| passwords.generate());
    let caller = HashingCaller::new(CallerClass::Known, CallerGroup::Operator, cx.origin().address());
    let hash = passwords.hash(&caller, password.clone()).await?;
    let generated = chosen.is_none().then_some(password);
    Ok(NewPassword { hash, generated })
}

/// Deactivates an operator and ends their tokens.
///
/// # Errors
/// [`OperatorError`].
pub async fn deactivate(cx: &OperatorCx, email: &str) -> Result<Operator, OperatorError> {
    let because = SystemScope::because("an operator is deactivated");
    set_active(cx, because, email, false).await
}

/// Activates an operator who was deactivated. Password and second factor are the former ones; former tokens stay invalid.
///
/// # Errors
/// [`OperatorError`].
pub async fn activate(cx: &OperatorCx, email: &str) -> Result<Operator, OperatorError> {
    let because = SystemScope::because("an operator is activated");
    set_active(cx, because, email, true).await
}

async fn set_active(
    cx: &OperatorCx,
    because: SystemScope,
    email: &str,
    is_active: bool,
) -> Result<Operator, OperatorError> {
    let email = Email::parse(email, "/email")?;
    let found = cx.app().ports.operators.find_by_email(because, &email).await?;
    let id = found.ok_or(OperatorError::NotFound)?.id;
    let mut work = cx.begin().await?;
    let before = work.lock_operator(id).await?.ok_or(OperatorError::NotFound)?;
    work.set_active(id, is_active, cx.now()).await?;
    let operator = Operator {
        is_active,
        epoch: before.epoch + 1,
        updated_at: cx.now(),
        ..before
    };
    let action = if is_active {
        "operator.activated"
    } else {
        "operator.deactivated"
    };
    work.commit(cx.record(action, None, json!({"operator": operator})))
        .await?;
    Ok(operator)
}
