//! Users who move in from another system, with their password hashes.

use serde_json::json;
use tenantry_domain::identity::{Email, NewUser, PasswordHash, RoleName, User};
use tenantry_domain::kernel::{Check, Invalid, Permission, Role, SystemScope, TenantId, UserId};

use crate::identity::email_domain::AllowedDomains;
use crate::identity::user::UserError;
use crate::identity::{address, invitation};
use crate::kernel::step_up::may_give_role;
use crate::plans::Countable;
use crate::{Changed, Cx, OperatorCx};

/// A user who moves in.
#[derive(Debug, Clone)]
pub struct ImportUser {
    /// The address.
    pub email: String,
    /// The name of the person, as shown to others.
    pub full_name: String,
    /// What the user may do in the tenant.
    pub role: Role,
    /// The name of the custom role that narrows the role, if one does.
    pub custom_role: Option<String>,
    /// A hash that [`PasswordHasher::import`](tenantry_domain::identity::PasswordHasher::import) accepts; without one the user
    /// has to reset the password before the first login.
    pub password_hash: Option<String>,
    /// Whether the address counts as verified. No mail is sent in either case.
    pub email_verified: bool,
}

/// What became of a user to import.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    /// The user was created.
    Created,
    /// The tenant has a user of that address already, who is left as they are.
    Present,
}

/// How many users had which outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ImportCounts {
    /// Users who were created.
    pub created: u64,
    /// Users whom the tenant had already.
    pub present: u64,
    /// Lines in which something was wrong.
    pub failed: u64,
}

/// Begins an import, with its record, and returns the context in which users of the tenant are imported. For commands.
///
/// # Errors
/// [`UserError::Denied`], also for a tenant that is suspended or deleted.
pub async fn begin(operators: &OperatorCx, tenant: TenantId, email_verified: bool) -> Result<Cx, UserError> {
    operators.require_command()?;
    let because = SystemScope::because("an operator imports users");
    let cx = operators.enter(because, tenant).await?;
    let details = json!({ "email_verified": email_verified });
    let record = operators.record("users.import_begun", Some(tenant), details);
    operators.announce(record).await?;
    Ok(cx)
}

/// Records how an import has ended, and why it was given up where it was. The users are in the log of the tenant.
///
/// # Errors
/// Those of the store.
pub async fn end(
    operators: &OperatorCx,
    tenant: TenantId,
    counts: ImportCounts,
    error: Option<&str>,
) -> Result<(), UserError> {
    operators.require_command()?;
    let action = match error {
        Some(_) => "users.import_failed",
        None => "users.imported",
    };
    let ImportCounts {
        created,
        present,
        failed,
    } = counts;
    let details = json!({"created": created, "present": present, "failed": failed, "error": error});
    let record = operators.record(action, Some(tenant), details);
    Ok(operators.announce(record).await?)
}

/// Creates a user, unless the tenant has one of that address. An open invitation of the address is revoked, as when an admin
/// adds a user.
///
/// # Errors
/// `invalid_hash` at `/password_hash`, `unknown_role` at `/custom_role` and `email_reserved` at `/email` among the [`UserError::Invalid`]; [`UserError::NotInPlan`], [`UserError::Refused`], and
/// those of the store.
pub async fn import(cx: &Cx, data: ImportUser) -> Result<Imported, UserError> {
    cx.require(Permission::ImportUsers)?;
    let user = prepare(cx, data)?;
    AllowedDomains::of(cx).await?.check(&user.email)?;
    cx.write(async |work| {
        address::lock_tenant(work).await?;
        address::supersede_registration(cx, work, &user.email).await?;
        if work.users().find_by_email(&user.email).await?.is_some() {
            return Ok(Imported::Present);
        }
        if address::is_former(cx, work, &user.email, None).await? {
            return Err(reserved().into());
        }
        if let Some(name) = &user.custom_role {
            may_give_role::<UserError>(cx, work, name).await?;
        }
        invitation::supersede(cx, work, &user.email).await?;
        cx.ports()
            .entitlements
            .require_one_more(cx, work, Countable::Users)
            .await?;
        work.users().insert(&user).await?;
        cx.record(work, Changed::with("user.imported", None, &user))
            .await?;
        Ok(Imported::Created)
    })
    .await
}

/// The address of a line is kept for another user.
fn reserved() -> Invalid {
    let detail =
        "was the address of another user within seven days, who can take it back; import the line after that";
    Invalid::one("/email", "email_reserved", detail)
}

fn prepare(cx: &Cx, data: ImportUser) -> Result<User, Invalid> {
    let passwords = &cx.ports().passwords;
    let mut check = Check::new();
    let email = check.take(Email::parse(&data.email, "/email"));
    check.line("/full_name", data.full_name.trim(), 1..=120);
    let hash = data
        .password_hash
        .map_or_else(|| Ok(passwords.unusable()), |text| read_hash(cx, text));
    let hash = check.take(hash);
    let custom_role = data.custom_role.as_deref().map(RoleName::of_user).transpose();
    let custom_role = check.take(custom_role).flatten();
    check.verdict()?;
    let (Some(email), Some(hash)) = (email, hash) else {
        return Err(Invalid(Vec::new()));
    };
    let new = NewUser {
        email,
        full_name: data.full_name,
        role: data.role,
    };
    let mut user = User::new(UserId::next(cx.ids()), new, hash, cx.now())?;
    user.email_verified = data.email_verified;
    user.custom_role = custom_role;
    Ok(user)
}

fn read_hash(cx: &Cx, text: String) -> Result<PasswordHash, Invalid> {
    let read = cx.ports().passwords.import(text);
    read.map_err(|refused| Invalid::one("/password_hash", "invalid_hash", refused.0))
}
