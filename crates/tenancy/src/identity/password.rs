//! Comparing a password with that of the caller's account.

use tenantry_domain::identity::{
    Guess, HashingCaller, Password, PasswordError, PasswordHash, PasswordHasher, User, Verified,
};
use tenantry_domain::kernel::StoreError;

use crate::Cx;
use crate::identity::lockout;

/// What comparing a password leads to.
pub(crate) enum Compared {
    /// It is that of the account.
    Right,
    /// It is another one.
    Wrong,
    /// It was not compared: the account waits for so many seconds.
    Locked(i64),
}

/// Compares a password with that of the caller's account. A wrong one is counted like one of a login: a session may be stolen,
/// so it does not make the caller's network a known one.
pub(crate) async fn compare<E>(cx: &Cx, user: &User, password: Password) -> Result<Compared, E>
where
    E: From<PasswordError> + From<StoreError>,
{
    let (guesser, standing) = cx
        .read(async |work| {
            let guesser = lockout::guesser(cx, work, user).await?;
            let standing = lockout::look(cx, work, Guess::Password, guesser).await?;
            Ok::<_, StoreError>((guesser, standing))
        })
        .await?;
    if let Some(seconds) = standing.wait {
        lockout::record(cx, Guess::Password, Some(user.id), None).await?;
        return Ok(Compared::Locked(seconds));
    }
    let hash = Some(user.password_hash.clone());
    let passwords = &cx.ports().passwords;
    let verified = passwords.verify(&cx.hashing_caller(), password, hash).await?;
    if !verified.is_right() || user.has_expired_password(cx.now()) {
        cx.write_behind(async |work| lockout::fail(cx, work, Guess::Password, guesser).await)
            .await?;
        return Ok(Compared::Wrong);
    }
    if standing.has_failed {
        cx.write_behind(async |work| lockout::succeed(work, Guess::Password, guesser).await)
            .await?;
    }
    Ok(Compared::Right)
}

/// The hash of a right password whose stored hash is weaker than today's. That the hasher is busy is no reason to refuse
/// the login: the next one tries again.
pub(crate) async fn renew(
    passwords: &dyn PasswordHasher,
    caller: &HashingCaller,
    verified: Verified,
    password: Password,
) -> Option<PasswordHash> {
    match verified {
        Verified::Outdated => passwords.hash(caller, password).await.ok(),
        Verified::Right | Verified::Wrong => None,
    }
}
