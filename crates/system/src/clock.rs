use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, Utc};
use tenantry_domain::kernel::{Clock, Time};

/// The machine's clock, in whole microseconds, without its small steps backwards.
///
/// A step back of up to one second (a leap second, a correction by NTP) is held: the clock stands still
/// until the machine's has caught up, so that what happens later is never stamped earlier. A larger
/// correction is followed at once: standing still for hours would keep tokens alive that should have
/// expired.
#[derive(Debug)]
pub struct SystemClock {
    /// Microseconds since the Unix epoch, as last told.
    last: AtomicI64,
}

impl SystemClock {
    /// A clock that has not told the time yet.
    pub const fn new() -> Self {
        Self {
            last: AtomicI64::new(i64::MIN),
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where the machine's clock is read"
    )]
    fn now(&self) -> Time {
        let observed = Utc::now().timestamp_micros();
        let update = |last| Some(steady(last, observed));
        let (Ok(last) | Err(last)) = self
            .last
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        // Out of range is a clock 262,000 years from now: the epoch is as good an answer as any.
        DateTime::from_timestamp_micros(steady(last, observed)).unwrap_or(DateTime::UNIX_EPOCH)
    }
}

/// The longest step backwards that is held, in microseconds.
const HELD_MICROS: i64 = 1_000_000;

/// What to tell after `last`, when the machine says `observed`.
const fn steady(last: i64, observed: i64) -> i64 {
    if observed < last && last - observed <= HELD_MICROS {
        last
    } else {
        observed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_whole_microseconds_and_never_an_earlier_one() {
        let clock = SystemClock::new();
        let mut last = clock.now();
        for _ in 0..10_000 {
            let now = clock.now();
            assert_eq!(now.timestamp_subsec_nanos() % 1_000, 0);
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn holds_a_small_step_back_and_follows_a_large_one() {
        assert_eq!(steady(i64::MIN, 5), 5);
        assert_eq!(steady(10_000_000, 10_000_001), 10_000_001);
        assert_eq!(steady(10_000_000, 9_000_000), 10_000_000);
        assert_eq!(steady(10_000_000, 8_999_999), 8_999_999);
    }
}
