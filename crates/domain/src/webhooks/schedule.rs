use std::time::Duration;

use crate::webhooks::outcome::DeliveryOutcome;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// The waits that Standard Webhooks recommends; the first attempt is made at once.
const STANDARD: [Duration; 9] = [
    SECOND.saturating_mul(5),
    MINUTE.saturating_mul(5),
    MINUTE.saturating_mul(30),
    HOUR.saturating_mul(2),
    HOUR.saturating_mul(5),
    HOUR.saturating_mul(10),
    HOUR.saturating_mul(14),
    HOUR.saturating_mul(20),
    HOUR.saturating_mul(24),
];

/// The share of a wait by which jitter makes it shorter or longer, in percent.
const JITTER: u64 = 20;

/// The shortest wait after an answer of a receiver with too much to do.
const OVERLOADED: Duration = MINUTE;

/// When a message that was not delivered is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySchedule {
    waits: Vec<Duration>,
}

/// What is wrong with a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// It has too many waits.
    #[error("must have at most {} waits", RetrySchedule::MOST)]
    TooMany,
    /// A wait is too long, or none.
    #[error("each wait must have 1 second to 7 days")]
    Wait,
}

/// What follows an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// Nothing: the message is delivered.
    Done,
    /// Another attempt, this long after the last one.
    Retry(Duration),
    /// Nothing: every attempt of the schedule has failed.
    GiveUp,
    /// The endpoint wants no more messages, so it is disabled.
    Disable,
}

impl Default for RetrySchedule {
    /// The schedule of Standard Webhooks: ten attempts in about three days.
    fn default() -> Self {
        Self {
            waits: STANDARD.to_vec(),
        }
    }
}

impl RetrySchedule {
    /// The most waits of a schedule.
    pub const MOST: usize = 20;

    /// The longest wait.
    pub const LONGEST: Duration = HOUR.saturating_mul(7 * 24);

    /// A schedule with these waits between one attempt and the next; without any, a message is tried once.
    ///
    /// # Errors
    /// [`ScheduleError`].
    pub fn new(waits: Vec<Duration>) -> Result<Self, ScheduleError> {
        if waits.len() > Self::MOST {
            return Err(ScheduleError::TooMany);
        }
        if !waits.iter().all(|wait| (SECOND..=Self::LONGEST).contains(wait)) {
            return Err(ScheduleError::Wait);
        }
        Ok(Self { waits })
    }

    /// How many attempts a message has.
    pub fn attempts(&self) -> usize {
        self.waits.len() + 1
    }

    /// What follows an attempt, of which `made` says the how-many-th it was; the first is 1. The wait of the schedule is made up to 20 %
    /// shorter or longer by `random`, which is spread evenly over all of `u32`: messages that failed together do not come back together.
    /// A wait that the receiver asks for is kept, and made up to 20 % longer.
    pub fn after(&self, made: usize, outcome: &DeliveryOutcome, random: u32) -> NextStep {
        match outcome {
            DeliveryOutcome::Delivered(_) => return NextStep::Done,
            DeliveryOutcome::Gone(_) => return NextStep::Disable,
            DeliveryOutcome::Refused(_)
            | DeliveryOutcome::TimedOut(_)
            | DeliveryOutcome::ConnectionFailed(_)
            | DeliveryOutcome::ForbiddenAddress
            | DeliveryOutcome::NameNotFound => {}
        }
        let Some(wait) = self.waits.get(made.saturating_sub(1)) else {
            return NextStep::GiveUp;
        };
        let slow = if outcome.is_overloaded() {
            OVERLOADED
        } else {
            Duration::ZERO
        };
        let asked = outcome.answer().and_then(|answer| answer.retry_after);
        let least = asked.unwrap_or_default().max(slow);
        let by_schedule = share(*wait, 100 - JITTER, 2 * JITTER, random);
        let by_receiver = share(least, 100, JITTER, random);
        NextStep::Retry(by_schedule.max(by_receiver))
    }
}

/// So many percent of a duration, and up to `more` percent on top by chance; in whole milliseconds, rounded up.
fn share(of: Duration, percent: u64, more: u64, random: u32) -> Duration {
    let parts = u128::from(percent) * u128::from(u32::MAX) + u128::from(more) * u128::from(random);
    let millis = (of.as_millis() * parts).div_ceil(100 * u128::from(u32::MAX));
    Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::webhooks::outcome::{Answer, ConnectionFault, DeliveryPhase};
    use crate::webhooks::retry_after::LONGEST_RETRY_AFTER;

    fn answer(status: u16, retry_after: Option<u64>) -> DeliveryOutcome {
        DeliveryOutcome::of(Answer {
            status,
            retry_after: retry_after.map(Duration::from_secs),
            excerpt: String::new(),
        })
    }

    /// Neither shorter nor longer.
    const MIDDLE: u32 = u32::MAX / 2;

    fn wait(made: usize, outcome: &DeliveryOutcome, random: u32) -> u64 {
        match RetrySchedule::default().after(made, outcome, random) {
            NextStep::Retry(wait) => wait.as_secs_f64().round() as u64,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn default_schedule_is_that_of_the_standard() {
        let failed = answer(500, None);
        let waits: Vec<u64> = (1..=9).map(|made| wait(made, &failed, MIDDLE)).collect();
        assert_eq!(
            waits,
            [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400]
        );
        let schedule = RetrySchedule::default();
        assert_eq!(
            (schedule.attempts(), schedule.after(10, &failed, 0)),
            (10, NextStep::GiveUp)
        );
    }

    #[test]
    fn each_failure_is_tried_again_and_success_is_not() {
        let schedule = RetrySchedule::default();
        for outcome in [
            answer(302, None),
            answer(404, None),
            DeliveryOutcome::TimedOut(DeliveryPhase::Head),
            DeliveryOutcome::ConnectionFailed(ConnectionFault::Tls),
            DeliveryOutcome::ForbiddenAddress,
            DeliveryOutcome::NameNotFound,
        ] {
            assert!(
                matches!(schedule.after(1, &outcome, 0), NextStep::Retry(_)),
                "{outcome:?}"
            );
        }
        assert_eq!(schedule.after(1, &answer(204, Some(9)), 0), NextStep::Done);
        assert_eq!(schedule.after(1, &answer(410, Some(9)), 0), NextStep::Disable);
        assert_eq!(schedule.after(10, &answer(410, None), 0), NextStep::Disable);
    }

    #[test]
    fn receiver_can_ask_for_a_longer_wait_only() {
        assert_eq!(wait(1, &answer(429, Some(3_600)), 0), 3_600);
        assert_eq!(wait(1, &answer(503, Some(3_600)), u32::MAX), 4_320);
        assert_eq!(wait(4, &answer(429, Some(1)), MIDDLE), 7_200);
        assert_eq!(wait(1, &answer(504, None), 0), 60);
        assert_eq!(wait(1, &answer(500, None), 0), 4);
    }

    #[test]
    fn configured_schedules_are_checked() {
        let hours = |hours: u64| Duration::from_hours(hours);
        assert_eq!(RetrySchedule::new(vec![]).unwrap().attempts(), 1);
        assert_eq!(RetrySchedule::new(vec![hours(168); 20]).unwrap().attempts(), 21);
        assert_eq!(
            RetrySchedule::new(vec![hours(1); 21]),
            Err(ScheduleError::TooMany)
        );
        assert_eq!(RetrySchedule::new(vec![hours(169)]), Err(ScheduleError::Wait));
        assert_eq!(
            RetrySchedule::new(vec![Duration::from_millis(999)]),
            Err(ScheduleError::Wait)
        );
    }

    proptest! {
        #[test]
        fn wait_is_within_its_jitter_and_never_before_the_receiver_wants_it(
            made in 1..=9_usize, random: u32, status in 300..=599_u16, asked in proptest::option::of(0..=100_000_u64),
        ) {
            prop_assume!(status != 410);
            let asked = asked.map(|seconds| seconds.min(LONGEST_RETRY_AFTER.as_secs()));
            let outcome = answer(status, asked);
            let NextStep::Retry(wait) = RetrySchedule::default().after(made, &outcome, random) else { unreachable!() };
            let planned = STANDARD[made - 1];
            let slow = if outcome.is_overloaded() { OVERLOADED } else { Duration::ZERO };
            let least = asked.map(Duration::from_secs).unwrap_or_default().max(slow);
            prop_assert!(wait >= planned.mul_f64(0.799) && wait >= least, "{:?}", wait);
            prop_assert!(wait <= planned.max(least).mul_f64(1.201), "{:?}", wait);
        }
    }
}
