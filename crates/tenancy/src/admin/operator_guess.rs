//! Lockout of operators' accounts after failed guesses, by the rules of users' accounts.

use serde_json::json;
use tenantry_domain::identity::{Email, Guess};
use tenantry_domain::kernel::{StoreError, SystemScope};
use tenantry_domain::operations::OperatorGuesses;

use crate::audit::refusal::{self, Refusal, RefusedAction};
use crate::identity::lockout::{self, Guesser, Standing};
use crate::{OperatorCx, Tenancy};

/// Looks up how a guesser at a password stands.
pub(crate) async fn look(app: &Tenancy, guesser: Guesser) -> Result<Standing, StoreError> {
    let mut guesses = begin(app).await?;
    let now = app.ports.clock.now();
    let standing = lockout::look_at(guesses.lockouts(), Guess::Password, guesser, now).await?;
    guesses.commit().await?;
    Ok(standing)
}

/// Counts a wrong password.
pub(crate) async fn fail(app: &Tenancy, guesser: Guesser) -> Result<(), StoreError> {
    let mut guesses = begin(app).await?;
    let now = app.ports.clock.now();
    lockout::fail_at(guesses.lockouts(), Guess::Password, guesser, now).await?;
    guesses.commit().await
}

/// Deletes the wrong passwords from the guesser's network, once one was right.
pub(crate) async fn succeed(app: &Tenancy, guesser: Guesser) -> Result<(), StoreError> {
    let mut guesses = begin(app).await?;
    lockout::succeed_at(guesses.lockouts(), Guess::Password, guesser).await?;
    guesses.commit().await
}

/// Records a guess that was refused unseen, or counts it.
pub(crate) async fn record_locked(
    cx: &OperatorCx,
    guess: Guess,
    email: Option<&Email>,
) -> Result<(), StoreError> {
    let details = json!({"guess": guess.as_str(), "email": email});
    refuse(cx, RefusedAction::Locked, details).await
}

/// Records a refusal of an operator or of a caller who wants to be one, or counts it.
pub(crate) async fn refuse(
    cx: &OperatorCx,
    action: RefusedAction,
    details: serde_json::Value,
) -> Result<(), StoreError> {
    let refusal = Refusal {
        action,
        target_type: "operator",
        target: None,
        actor: None,
        ip: cx.origin().ip.clone(),
        details,
    };
    refusal::record_of_operators(cx, refusal).await
}

async fn begin(app: &Tenancy) -> Result<Box<dyn OperatorGuesses>, StoreError> {
    let because = SystemScope::because("guesses at an operator's account are counted");
    app.ports.operators.begin_guess(because).await
}
