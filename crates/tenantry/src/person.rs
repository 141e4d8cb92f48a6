//! `tenantry user export` and `tenantry user erase`: the data of one person from the command line.

use std::path::Path;

use tenantry_domain::identity::{Email, User};
use tenantry_domain::kernel::{SystemScope, UserId};
use tenantry_tenancy::archive::export;
use tenantry_tenancy::identity::erasure;
use tenantry_tenancy::identity::user::UserError;
use tenantry_tenancy::{Cx, OperatorCx};

use crate::tenant::{find_any, invalid, other};
use crate::{CommandError, archive, console};

/// Writes the archive of the person who has an address, or who had it last.
pub async fn export(
    operators: &OperatorCx,
    (slug, email): (&str, &str),
    out: &Path,
) -> Result<(), CommandError> {
    let (cx, users) = accounts(operators, slug, email).await?;
    let live = users.iter().find(|user| user.deleted_at.is_none());
    let Some(user) = live.or(users.last()) else {
        return Err(no_user(slug, email));
    };
    let about = export::about(&cx, user.id).await.map_err(|error| other(&error))?;
    let about = about.ok_or_else(|| no_user(slug, email))?;
    let tenant = find_any(operators.app(), slug).await?;
    archive::export(operators, &tenant, Some(&about), out).await
}

/// Erases every account that has an address, and waits until all traces are erased.
pub async fn erase(
    operators: &OperatorCx,
    (slug, email): (&str, &str),
    confirm: &str,
) -> Result<(), CommandError> {
    if !email.trim().eq_ignore_ascii_case(confirm.trim()) {
        return Err(CommandError::Other(
            "nothing was erased: --confirm must be the address of --email".into(),
        ));
    }
    let (cx, users) = accounts(operators, slug, email).await?;
    // An account that a killed command has made anonymous no longer has the address.
    let begun = erasure::unfinished(&cx, &address(email)?).await;
    let begun = begun.map_err(|error| other(&error))?;
    let accounts: Vec<UserId> = users.iter().map(|user| user.id).chain(begun).collect();
    if accounts.is_empty() {
        return Err(no_user(slug, email));
    }
    for user in accounts {
        let erased = erasure::erase_by_operator(operators, &cx, user, confirm).await;
        erased.map_err(|error| not_erased(&error))?;
        console::progress(&format!("{user}: the account is anonymous"));
        let finished = erasure::finish(&cx, user).await.map_err(|error| other(&error))?;
        let entries = finished.as_ref().map_or(0, |erasure| erasure.entries);
        let rest = match finished.is_some_and(|erasure| erasure.finished_at.is_some()) {
            true => "finished",
            false => "the server erases the entries of transactions that have not ended yet",
        };
        console::say(&format!(
            "{user} erased: {entries} entries of the audit log, {rest}"
        ));
    }
    Ok(())
}

fn not_erased(error: &UserError) -> CommandError {
    match error {
        UserError::Invalid(bad) => invalid(bad),
        error => other(error),
    }
}

fn no_user(slug: &str, email: &str) -> CommandError {
    CommandError::Other(format!(
        "the tenant '{slug}' has no user {email}, or erased them already: check the address"
    ))
}

fn address(email: &str) -> Result<Email, CommandError> {
    Email::parse(email, "/email").map_err(|error| invalid(&error))
}

async fn accounts(operators: &OperatorCx, slug: &str, email: &str) -> Result<(Cx, Vec<User>), CommandError> {
    let email = address(email)?;
    let tenant = find_any(operators.app(), slug).await?.id;
    let because = SystemScope::because("an operator exports or erases the data of a person");
    let cx = operators.enter(because, tenant).await;
    let cx = cx.map_err(|error| other(&error))?;
    let users = erasure::named(&cx, &email).await.map_err(|error| other(&error))?;
    Ok((cx, users))
}
