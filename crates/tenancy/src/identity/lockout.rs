//! Lockout of accounts after failed guesses: when a guess is refused, and what counts as one.
//!
//! The rows are in the tenant's database, so that they hold across servers and restarts. They are of addresses, known or
//! unknown, so unknown ones wait alike. A wait never holds up a trusted device, whose trust ends after as many wrong passwords; failures elsewhere hold up neither a network
//! from which the account has lately logged in, nor one from which its password was just reset.

use std::net::IpAddr;

use serde_json::json;
use tenantry_domain::identity::{
    AccountDigest, Email, Guess, Lockout, Lockouts, Place, SecurityNotice, User,
};
use tenantry_domain::kernel::{Network, StoreError, Time, UserId};
use tenantry_domain::operations::AccountName;
use tenantry_domain::store::Work;

use crate::Cx;
use crate::audit::refusal::{self, Refusal, RefusedAction, RefusedActor};
use crate::identity::{known_network, security_notice};

/// Who guesses: at which account, and from where.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guesser {
    account: AccountDigest,
    here: Place,
    is_known: bool,
}

impl Guesser {
    /// The caller of the context, who names an address. `is_known` says whether its account has lately logged in from the
    /// caller's network.
    pub(crate) fn of(cx: &Cx, email: &str, is_known: bool) -> Self {
        Self::at(cx.origin().address(), email, is_known)
    }

    /// The same for a caller at an address.
    pub(crate) fn at(address: Option<IpAddr>, email: &str, is_known: bool) -> Self {
        Self {
            account: AccountName::of(email).bytes(),
            here: Place::Network(Network::site(address)),
            is_known,
        }
    }

    /// A caller who shows the token of a trusted device, by its hash. The device is not held up where its account waits, so its wrong
    /// guesses are counted by themselves, wherever they come from.
    pub(crate) fn of_device(token_hash: [u8; 32]) -> Self {
        let mut account = AccountDigest::default();
        account.copy_from_slice(token_hash.split_at(16).0);
        Self {
            account,
            here: Place::Network(None),
            is_known: true,
        }
    }

    /// Whether the account has lately logged in from the caller's network.
    pub(crate) const fn is_known(self) -> bool {
        self.is_known
    }

    /// Where a failure counts: from a known network only there, so that its owner's mistakes lock nobody out elsewhere.
    fn places(self) -> impl Iterator<Item = Place> {
        let anywhere = (!self.is_known).then_some(Place::Anywhere);
        [self.here].into_iter().chain(anywhere)
    }
}

/// How a guesser stands.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Standing {
    /// How many seconds the guesser has to wait; `None` when a guess is allowed now.
    pub wait: Option<i64>,
    /// Whether there is something to forget when the guess is right.
    pub has_failed: bool,
}

/// Looks up how a guesser stands.
pub(crate) async fn look(
    cx: &Cx,
    work: &mut Work,
    guess: Guess,
    guesser: Guesser,
) -> Result<Standing, StoreError> {
    look_at(work.lockouts(), guess, guesser, cx.now()).await
}

/// The same among these rows.
pub(crate) async fn look_at(
    lockouts: &mut dyn Lockouts,
    guess: Guess,
    guesser: Guesser,
    now: Time,
) -> Result<Standing, StoreError> {
    let places = [guesser.here, Place::Anywhere];
    let rows = lockouts.find(guesser.account, guess, &places).await?;
    let is_here = |row: &&Lockout| row.place == guesser.here;
    let is_exempt = guesser.is_known || rows.iter().filter(is_here).any(|row| row.is_exempt(now));
    let binding = rows.iter().filter(|row| is_here(row) || !is_exempt);
    Ok(Standing {
        wait: binding.filter_map(|row| row.seconds_left(now)).max(),
        has_failed: !rows.is_empty(),
    })
}

/// Counts a failed guess, and returns whether a wait begins with it.
pub(crate) async fn fail(
    cx: &Cx,
    work: &mut Work,
    guess: Guess,
    guesser: Guesser,
) -> Result<bool, StoreError> {
    fail_at(work.lockouts(), guess, guesser, cx.now()).await
}

/// The same among these rows.
pub(crate) async fn fail_at(
    lockouts: &mut dyn Lockouts,
    guess: Guess,
    guesser: Guesser,
    now: Time,
) -> Result<bool, StoreError> {
    let mut begins = false;
    for place in guesser.places() {
        let new = Lockout::new(guesser.account, guess, place, now);
        let mut row = lockouts.find_or_insert(&new).await?;
        begins |= row.fail(now);
        lockouts.update(&row).await?;
    }
    Ok(begins)
}

/// Counts a wrong code of a user, and notifies the user when a wait begins: whoever tries codes knows the password.
pub(crate) async fn fail_code(
    cx: &Cx,
    work: &mut Work,
    user: &User,
    guesser: Guesser,
) -> Result<(), StoreError> {
    if fail(cx, work, Guess::Code, guesser).await? {
        let address = cx.origin().ip.clone();
        security_notice::notify(cx, work, user.id, SecurityNotice::WrongCodes { address }).await?;
    }
    Ok(())
}

/// Forgets the failures, once a guess was right: those from the guesser's network; of codes, which only the owner has, those
/// from all networks together, too.
pub(crate) async fn succeed(work: &mut Work, guess: Guess, guesser: Guesser) -> Result<(), StoreError> {
    succeed_at(work.lockouts(), guess, guesser).await
}

/// The same among these rows.
pub(crate) async fn succeed_at(
    lockouts: &mut dyn Lockouts,
    guess: Guess,
    guesser: Guesser,
) -> Result<(), StoreError> {
    lockouts.delete(guesser.account, guess, guesser.here).await?;
    match guess {
        Guess::Password => Ok(()),
        Guess::Code => lockouts.delete(guesser.account, guess, Place::Anywhere).await,
    }
}

/// Ends all waits of an account whose password was replaced, and exempts the network of the caller, who read the account's
/// mail, from failures elsewhere for a while.
pub(crate) async fn lift(cx: &Cx, work: &mut Work, email: &Email) -> Result<(), StoreError> {
    let guesser = Guesser::of(cx, email.as_str(), false);
    work.lockouts().delete_of(guesser.account).await?;
    for guess in Guess::ALL {
        let new = Lockout {
            exempt_until: Some(cx.now() + Lockout::EXEMPT),
            ..Lockout::new(guesser.account, guess, guesser.here, cx.now())
        };
        // A guess that fails at this moment may have stored its row.
        work.lockouts().find_or_insert(&new).await?;
        work.lockouts().update(&new).await?;
    }
    Ok(())
}

/// Records a guess that was refused unseen, or counts it.
pub(crate) async fn record(
    cx: &Cx,
    guess: Guess,
    user: Option<UserId>,
    email: Option<&Email>,
) -> Result<(), StoreError> {
    let details = match user {
        Some(_) => json!({"guess": guess.as_str()}),
        None => json!({"guess": guess.as_str(), "email": email}),
    };
    let refusal = Refusal {
        action: RefusedAction::Locked,
        target_type: "user",
        target: user.map(UserId::uuid),
        actor: RefusedActor::of(cx.scope()),
        ip: cx.origin().ip.clone(),
        details,
    };
    refusal::record(cx, refusal).await
}

/// The caller of the context, who guesses at a user's account.
pub(crate) async fn guesser(cx: &Cx, work: &mut Work, user: &User) -> Result<Guesser, StoreError> {
    let addresses = known_network::logins(cx, work, &user.email).await?;
    let is_known = known_network::is_among(Network::site(cx.origin().address()), &addresses);
    Ok(Guesser::of(cx, user.email.as_str(), is_known))
}
