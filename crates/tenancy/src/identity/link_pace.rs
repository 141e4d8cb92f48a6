//! How fast links are mailed that callers without an account ask for.
//!
//! Anybody may ask for links to every address of a tenant that they know, from any number of networks. A few of these mails are sent at
//! once. The others wait for one another, and not in front of the mails that users and admins cause, which are due at once.

use chrono::Duration;
use tenantry_domain::kernel::Time;

/// The maximum number of requests for links that wait to be looked at. The answer to a request that is dropped is the same.
pub(super) const MOST_ASKED: u64 = 100;

/// How many of the mails are due at once.
const AT_ONCE: u64 = 5;

/// The time between two of the others.
const GAP: Duration = Duration::seconds(10);

/// The maximum number of mails that wait. No link is made for a request beyond it.
pub(super) const MOST_WAITING: u64 = 30;

/// How a link is mailed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// At once: a user or an admin has caused it, or the user has lately logged in from the network of the caller.
    Prompt,
    /// In its turn.
    Paced,
}

/// When the next mail is due while so many wait; `None` when it is not sent.
pub(super) fn due(waiting: u64, now: Time) -> Option<Time> {
    if waiting >= MOST_WAITING {
        return None;
    }
    let behind = i32::try_from((waiting + 1).saturating_sub(AT_ONCE)).unwrap_or(i32::MAX);
    Some(now + GAP * behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_mails_are_due_at_once_and_the_others_in_turn() {
        let now = Time::default();
        let after = |waiting| due(waiting, now).map(|at| (at - now).num_seconds());
        assert_eq!([0, 4, 5, 6].map(after), [Some(0), Some(0), Some(10), Some(20)]);
        assert_eq!([MOST_WAITING - 1, MOST_WAITING].map(after), [Some(250), None]);
    }
}
