//! Who becomes a user, before the tenant has them.

use tenantry_domain::identity::{Email, NewUser, Password, PasswordError, User};
use tenantry_domain::kernel::{Check, Invalid, StoreError, UserId};
use tenantry_domain::tenant::Tenant;

use crate::Cx;
use crate::customization::security_policy;
use crate::identity::new_password;
use crate::kernel::step_up::GrantedRole;

/// Who becomes a user.
#[derive(Debug)]
pub(crate) struct Applicant {
    /// Their address.
    pub email: String,
    /// The name of the person, as shown to others.
    pub full_name: String,
    /// Their password; generated when absent.
    pub password: Option<String>,
}

/// A new user of the tenant: all fields checked, the password hashed. The password too when it was
/// generated, because none was given.
pub(crate) async fn prepare(
    cx: &Cx,
    data: Applicant,
    role: GrantedRole,
    tenant: &Tenant,
) -> Result<(User, Option<Password>), PrepareError> {
    let passwords = &cx.ports().passwords;
    let mut check = Check::new();
    let email = check.take(Email::parse(&data.email, "/email"));
    let names = [tenant.slug.as_str(), &tenant.name, &data.email, &data.full_name];
    let chosen = new_password::choose_given(cx.app(), data.password, "/password", &names).await;
    let chosen = check.take(chosen);
    if let Some(Some(password)) = &chosen {
        check.take(security_policy::check_length(cx, password, "/password").await?);
    }
    check.line("/full_name", data.full_name.trim(), 1..=120);
    check.verdict()?;
    let (Some(email), Some(chosen)) = (email, chosen) else {
        return Err(Invalid(Vec::new()).into());
    };
    let generated = chosen.is_none().then(|| passwords.generate());
    let password = chosen
        .or_else(|| generated.clone())
        .unwrap_or_else(|| passwords.generate());
    let hash = passwords.hash(&cx.hashing_caller(), password).await?;
    let new = NewUser {
        email,
        full_name: data.full_name,
        role: role.role(),
    };
    let user = User::new(UserId::next(cx.ids()), new, hash, cx.now())?;
    Ok((user, generated))
}

/// Why a user cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Store(#[from] StoreError),
}
