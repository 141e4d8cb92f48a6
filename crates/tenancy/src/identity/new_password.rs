//! Passwords that people choose: the rules that hold wherever one is chosen.

use std::sync::atomic::{AtomicU64, Ordering};

use tenantry_domain::identity::Password;
use tenantry_domain::kernel::Invalid;

use crate::Tenancy;

/// Returns a password that a person chooses, held to all rules of the server: its length, the names that it must not contain, the
/// commonest ones, and those that are known from breaches, where the server has such a list. A list that does not answer refuses no
/// password: otherwise nobody could replace a stolen one while the list is away.
///
/// # Errors
/// `weak_password` at `pointer`.
pub(crate) async fn choose(
    app: &Tenancy,
    text: String,
    pointer: &str,
    names: &[&str],
) -> Result<Password, Invalid> {
    let password = app.ports.passwords.choose(text, pointer, names)?;
    let Some(breached) = &app.ports.breached_passwords else {
        return Ok(password);
    };
    match breached.contains(&password).await {
        Ok(false) => Ok(password),
        Ok(true) => {
            let detail = "is known from a breach of some service, where attackers read it; choose one that you use nowhere else";
            Err(Invalid::one(pointer, "weak_password", detail))
        }
        Err(reason) => {
            app.state::<UncheckedPasswords>().count();
            tracing::warn!(%reason, "password accepted without a comparison with breached ones");
            Ok(password)
        }
    }
}

/// [`choose`] where a password is given; `None` where it is not.
///
/// # Errors
/// As of [`choose`].
pub(crate) async fn choose_given(
    app: &Tenancy,
    text: Option<String>,
    pointer: &str,
    names: &[&str],
) -> Result<Option<Password>, Invalid> {
    match text {
        Some(text) => choose(app, text, pointer, names).await.map(Some),
        None => Ok(None),
    }
}

/// How many passwords were accepted without a comparison with breached ones, since the start of this process.
#[derive(Debug, Default)]
pub struct UncheckedPasswords(AtomicU64);

impl UncheckedPasswords {
    /// Returns the count.
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn count(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
