//! Lockout: after failed guesses in a row an account waits, longer after each further one.
//!
//! Failures are counted for each network and for all networks together. Those of all networks do not hold up a network from
//! which the account is known to log in, so attempts from elsewhere lock nobody out for long.

use async_trait::async_trait;

use crate::kernel::{Network, StoreError, Time};

/// What is guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guess {
    /// The password of an address, known or unknown.
    Password,
    /// A code of the second factor, by a caller who knows the password.
    Code,
}

impl Guess {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Password, Self::Code];

    /// Its name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Code => "code",
        }
    }

    /// How long failures at a place make the account wait. A code is one of a million and three are right at a time, so
    /// there are few guesses of it; only a caller who knows the password can use them up.
    pub const fn rule(self, place: Place) -> DelayRule {
        match (self, place) {
            (Self::Password, Place::Network(_)) => DelayRule {
                free: 20,
                first_seconds: 60,
                longest_seconds: 900,
            },
            // Many networks share it, so it is reached later.
            (Self::Password, Place::Anywhere) => DelayRule {
                free: 100,
                first_seconds: 60,
                longest_seconds: 900,
            },
            (Self::Code, Place::Network(_) | Place::Anywhere) => DelayRule {
                free: 5,
                first_seconds: 60,
                longest_seconds: 3_600,
            },
        }
    }
}

/// Where guesses come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// One network ([`Network::site`]); all callers without one share a place.
    Network(Option<Network>),
    /// All networks together.
    Anywhere,
}

impl std::fmt::Display for Place {
    /// Its name in the database.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Network(Some(network)) => network.fmt(f),
            Self::Network(None) => f.write_str("none"),
            Self::Anywhere => f.write_str("anywhere"),
        }
    }
}

/// How long an account waits after failures in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DelayRule {
    /// After how many failures the first wait begins; at least 1.
    pub free: u32,
    /// The first wait, in seconds; each further one is twice as long.
    pub first_seconds: i64,
    /// The longest wait, in seconds.
    pub longest_seconds: i64,
}

impl DelayRule {
    /// The wait after so many failures in a row, in seconds.
    pub fn seconds_after(self, failures: u32) -> i64 {
        let Some(further) = failures.checked_sub(self.free) else {
            return 0;
        };
        let doubled = 1_i64.checked_shl(further.min(40)).unwrap_or(i64::MAX);
        self.first_seconds
            .saturating_mul(doubled)
            .min(self.longest_seconds)
    }
}

/// The account that guesses are about: a part of the SHA-256 of its address.
pub type AccountDigest = [u8; 16];

/// The failed guesses at an account from a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lockout {
    /// Which account, known or unknown.
    pub account: AccountDigest,
    /// What is guessed.
    pub guess: Guess,
    /// From where.
    pub place: Place,
    /// How many failures in a row.
    pub failures: u32,
    /// When the last one was.
    pub last_at: Time,
    /// Until when the account waits.
    pub locked_until: Option<Time>,
    /// Until when failures elsewhere do not hold the place up.
    pub exempt_until: Option<Time>,
}

impl Lockout {
    /// After so long without a failure, those before are forgotten.
    pub const MEMORY: chrono::Duration = chrono::Duration::days(1);

    /// For how long a network is exempt from failures elsewhere after the password was reset from it.
    pub const EXEMPT: chrono::Duration = chrono::Duration::hours(1);

    /// The most rows of a tenant: callers without an account cause them.
    pub const MOST: u64 = 10_000;

    /// No failure yet.
    pub const fn new(account: AccountDigest, guess: Guess, place: Place, now: Time) -> Self {
        Self {
            account,
            guess,
            place,
            failures: 0,
            last_at: now,
            locked_until: None,
            exempt_until: None,
        }
    }

    /// Counts a failed guess, and returns whether a wait begins. A guess that was on its way when the wait began is not
    /// counted.
    pub fn fail(&mut self, now: Time) -> bool {
        if self.seconds_left(now).is_some() {
            return false;
        }
        if now - self.last_at >= Self::MEMORY {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.last_at = self.last_at.max(now);
        let seconds = self.guess.rule(self.place).seconds_after(self.failures);
        self.locked_until = (seconds > 0).then(|| now + chrono::Duration::seconds(seconds));
        self.locked_until.is_some()
    }

    /// How many seconds the account still waits, rounded up; `None` when it does not.
    pub fn seconds_left(&self, now: Time) -> Option<i64> {
        let left = self.locked_until? - now;
        let seconds = (left.num_milliseconds() + 999).div_euclid(1_000);
        (seconds > 0).then_some(seconds)
    }

    /// Whether failures elsewhere do not hold the place up.
    pub fn is_exempt(&self, now: Time) -> bool {
        self.exempt_until.is_some_and(|until| now < until)
    }
}

/// Failed guesses at accounts of the scope's tenant.
#[async_trait]
pub trait Lockouts: Send {
    /// The rows of an account for a guess at these places.
    async fn find(
        &mut self,
        account: AccountDigest,
        guess: Guess,
        places: &[Place],
    ) -> Result<Vec<Lockout>, StoreError>;
    /// The row of an account, a guess and a place, locked until the transaction ends; stored as `new` says when there is none.
    /// A new row beyond [`Lockout::MOST`] takes the place of the oldest ones.
    async fn find_or_insert(&mut self, new: &Lockout) -> Result<Lockout, StoreError>;
    /// Stores the new state of a row.
    async fn update(&mut self, lockout: &Lockout) -> Result<(), StoreError>;
    /// Deletes the row of an account for a guess at a place.
    async fn delete(&mut self, account: AccountDigest, guess: Guess, place: Place) -> Result<(), StoreError>;
    /// Deletes all rows of an account.
    async fn delete_of(&mut self, account: AccountDigest) -> Result<(), StoreError>;
    /// Deletes the rows whose last failure was before then; how many there were.
    async fn delete_before(&mut self, before: Time) -> Result<u64, StoreError>;
}

#[cfg(test)]
mod tests {
    use chrono::Duration;
    use proptest::prelude::*;

    use super::*;

    const PLACES: [Place; 2] = [Place::Network(None), Place::Anywhere];

    fn rules() -> impl Iterator<Item = DelayRule> {
        let of = |guess: Guess| PLACES.map(|place| guess.rule(place));
        Guess::ALL.into_iter().flat_map(of)
    }

    fn at(seconds: i64) -> Time {
        Time::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    /// How many guesses a caller gets within a day who guesses as soon as it is possible.
    fn guesses_a_day(guess: Guess, place: Place) -> u32 {
        let mut row = Lockout::new([0; 16], guess, place, at(0));
        let (mut now, mut guesses) = (0, 0);
        while now < 86_400 {
            row.fail(at(now));
            guesses += 1;
            now += row.seconds_left(at(now)).unwrap_or(0);
        }
        guesses
    }

    #[test]
    fn codes_of_a_day_are_guessed_with_chance_below_one_in_5000() {
        for place in PLACES {
            // Three of a million codes are right at a time.
            let guesses = guesses_a_day(Guess::Code, place);
            assert!(guesses * 3 * 5_000 < 1_000_000, "{guesses}");
        }
        let passwords = guesses_a_day(Guess::Password, Place::Network(None));
        assert!(passwords < 150, "{passwords}");
    }

    #[test]
    fn no_wait_is_longer_than_an_hour() {
        assert!(rules().all(|rule| rule.longest_seconds <= 3_600 && rule.free >= 5));
    }

    #[test]
    fn failures_are_forgotten_after_a_day() {
        let mut row = Lockout::new([0; 16], Guess::Code, Place::Anywhere, at(0));
        assert_eq!((0..5).filter(|_| row.fail(at(0))).count(), 1);
        assert_eq!(row.seconds_left(at(0)), Some(60));
        assert_eq!(
            (row.seconds_left(at(59)), row.seconds_left(at(60))),
            (Some(1), None)
        );
        assert!(row.fail(at(60)), "the next one begins a wait of two minutes");
        assert_eq!(row.seconds_left(at(60)), Some(120));
        assert!(!row.fail(at(60 + 86_400)));
        assert_eq!(row.failures, 1);
    }

    proptest! {
        #[test]
        fn waits_double_up_to_the_longest(failures in 0_u32..2_000) {
            for rule in rules() {
                let (wait, next) = (rule.seconds_after(failures), rule.seconds_after(failures + 1));
                prop_assert_eq!(wait == 0, failures < rule.free);
                prop_assert!(wait <= rule.longest_seconds);
                if wait > 0 {
                    prop_assert_eq!(next, (wait * 2).min(rule.longest_seconds));
                    prop_assert!(wait >= rule.first_seconds);
                }
            }
        }

        #[test]
        fn no_history_of_guesses_waits_longer_than_the_longest(gaps in prop::collection::vec(0_i64..100_000, 1..200)) {
            for (guess, place) in Guess::ALL.into_iter().flat_map(|guess| PLACES.map(|place| (guess, place))) {
                let mut row = Lockout::new([0; 16], guess, place, at(0));
                let (mut now, mut free) = (0, 0);
                for gap in &gaps {
                    now += gap;
                    let was_locked = row.seconds_left(at(now)).is_some();
                    if at(now) - row.last_at >= Lockout::MEMORY {
                        free = 0;
                    }
                    let began = row.fail(at(now));
                    prop_assert!(!(was_locked && began));
                    let left = row.seconds_left(at(now)).unwrap_or(0);
                    prop_assert!(left <= guess.rule(place).longest_seconds);
                    free = if left == 0 { free + 1 } else { 0 };
                    prop_assert!(free < guess.rule(place).free, "{free} guesses in a row without a wait");
                }
            }
        }

        #[test]
        fn clock_that_steps_back_makes_no_wait_longer(step in 0_i64..10_000) {
            let mut row = Lockout::new([0; 16], Guess::Code, Place::Anywhere, at(0));
            (0..5).for_each(|_| { row.fail(at(0)); });
            let until = row.locked_until;
            row.fail(at(-step));
            prop_assert_eq!(row.locked_until, until);
        }
    }

    #[test]
    fn exempt_places_are_so_for_an_hour() {
        let mut row = Lockout::new([0; 16], Guess::Password, Place::Network(None), at(0));
        assert!(!row.is_exempt(at(0)));
        row.exempt_until = Some(at(0) + Lockout::EXEMPT);
        assert!(row.is_exempt(at(3_599)) && !row.is_exempt(at(3_600)));
        assert_eq!(Duration::hours(1), Lockout::EXEMPT);
    }
}
