use std::time::Duration;

use crate::kernel::Time;
use crate::kernel::name::named_enum;
use crate::webhooks::outcome::{ConnectionFault, DeliveryOutcome};

named_enum! {
    /// Why the server has disabled an endpoint.
    pub enum DisableReason {
        /// All attempts of days have failed.
        Failing = "failing",
        /// The receiver answered 410.
        Gone = "gone",
    }
}

/// The failures of an endpoint since its last success, over all of its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailureStreak {
    /// When the first of them was tried.
    pub first: Time,
    /// When the last of them was tried.
    pub last: Time,
    /// How many they are.
    pub failures: u32,
}

/// What an attempt means for its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointStep {
    /// It stays enabled, with these failures since its last success.
    Keep(Option<FailureStreak>),
    /// It is disabled.
    Disable(DisableReason),
}

/// When an endpoint is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DisablingRule {
    /// For how long every attempt must have failed.
    pub period: Duration,
    /// How many attempts must have failed. An endpoint with few events is not disabled for a few of them.
    pub failures: u32,
}

impl Default for DisablingRule {
    /// Five days and ten failures. The attempts for one message take about three days, so that one message alone disables no endpoint.
    fn default() -> Self {
        Self {
            period: Duration::from_hours(5 * 24),
            failures: 10,
        }
    }
}

impl DisablingRule {
    /// What follows for an endpoint from an attempt made at a time. Attempts may be reported in another order than they were made in: a
    /// success ends only the failures before it. Failures that lie as far apart as the period begin anew, since nothing is known of the
    /// time between them.
    pub fn after(&self, streak: Option<FailureStreak>, outcome: &DeliveryOutcome, at: Time) -> EndpointStep {
        match outcome {
            DeliveryOutcome::Delivered(_) => {
                EndpointStep::Keep(streak.and_then(|streak| streak.without_until(at)))
            }
            DeliveryOutcome::Gone(_) => EndpointStep::Disable(DisableReason::Gone),
            // A fault of the server or its name servers says nothing about the endpoint.
            DeliveryOutcome::ConnectionFailed(ConnectionFault::NameServer | ConnectionFault::Other) => {
                EndpointStep::Keep(streak)
            }
            DeliveryOutcome::Refused(_)
            | DeliveryOutcome::TimedOut(_)
            | DeliveryOutcome::ConnectionFailed(_)
            | DeliveryOutcome::ForbiddenAddress
            | DeliveryOutcome::NameNotFound => {
                let known = streak.filter(|streak| at - self.period < streak.last);
                let streak = known.map_or_else(|| FailureStreak::of(at), |streak| streak.with(at));
                let is_long = streak.last - self.period >= streak.first;
                if is_long && streak.failures >= self.failures {
                    EndpointStep::Disable(DisableReason::Failing)
                } else {
                    EndpointStep::Keep(Some(streak))
                }
            }
        }
    }
}

impl FailureStreak {
    const fn of(at: Time) -> Self {
        Self {
            first: at,
            last: at,
            failures: 1,
        }
    }

    fn with(self, at: Time) -> Self {
        Self {
            first: self.first.min(at),
            last: self.last.max(at),
            failures: self.failures.saturating_add(1),
        }
    }

    /// What is left of the failures after a success: those that were tried later. How many these are is not known; the last one is one.
    fn without_until(self, success: Time) -> Option<Self> {
        if success < self.first {
            Some(self)
        } else {
            (success < self.last).then(|| Self::of(self.last))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::webhooks::outcome::Answer;

    fn outcome(status: u16) -> DeliveryOutcome {
        DeliveryOutcome::of(Answer {
            status,
            retry_after: None,
            excerpt: String::new(),
        })
    }

    fn at(hours: i64) -> Time {
        Time::from_timestamp(1_800_000_000 + hours * 3_600, 0).unwrap()
    }

    /// Reports attempts, each with its hour, until the endpoint is disabled; at which hour, and why.
    fn run(attempts: &[(i64, u16)]) -> Option<(i64, DisableReason)> {
        let mut streak = None;
        for (hour, status) in attempts {
            match DisablingRule::default().after(streak, &outcome(*status), at(*hour)) {
                EndpointStep::Keep(kept) => streak = kept,
                EndpointStep::Disable(reason) => return Some((*hour, reason)),
            }
        }
        None
    }

    #[test]
    fn days_of_failures_only_disable() {
        let daily: Vec<(i64, u16)> = (0..200).map(|hour| (hour, 500)).collect();
        assert_eq!(run(&daily), Some((120, DisableReason::Failing)));
        let with_success: Vec<(i64, u16)> = (0..1_000)
            .map(|hour| (hour, if hour % 119 == 0 { 200 } else { 500 }))
            .collect();
        assert_eq!(run(&with_success), None);
    }

    #[test]
    fn few_failures_or_one_message_do_not_disable() {
        let one_message: Vec<(i64, u16)> = [0, 0, 0, 1, 3, 8, 18, 32, 52, 76].map(|hour| (hour, 500)).into();
        assert_eq!(run(&one_message), None);
        let rare: Vec<(i64, u16)> = (0..9).map(|n| (n * 20, 500)).collect();
        assert_eq!(run(&rare), None, "nine failures in 160 hours");
        let monthly: Vec<(i64, u16)> = (0..50).map(|n| (n * 24 * 30, 500)).collect();
        assert_eq!(run(&monthly), None);
    }

    #[test]
    fn gone_disables_at_once() {
        assert_eq!(run(&[(0, 200), (1, 410)]), Some((1, DisableReason::Gone)));
    }

    #[test]
    fn faults_of_the_server_do_not_count() {
        let rule = DisablingRule::default();
        let streak = Some(FailureStreak {
            first: at(0),
            last: at(119),
            failures: 50,
        });
        let after = |fault| rule.after(streak, &DeliveryOutcome::ConnectionFailed(fault), at(120));
        for fault in [ConnectionFault::NameServer, ConnectionFault::Other] {
            assert_eq!(after(fault), EndpointStep::Keep(streak));
        }
        let refused = after(ConnectionFault::Refused);
        assert_eq!(refused, EndpointStep::Disable(DisableReason::Failing));
    }

    #[test]
    fn late_report_of_a_success_keeps_later_failures() {
        let rule = DisablingRule::default();
        let streak = FailureStreak {
            first: at(10),
            last: at(20),
            failures: 5,
        };
        let after = |success: i64| rule.after(Some(streak), &outcome(200), at(success));
        assert_eq!(after(9), EndpointStep::Keep(Some(streak)));
        assert_eq!(after(15), EndpointStep::Keep(Some(FailureStreak::of(at(20)))));
        assert_eq!(after(20), EndpointStep::Keep(None));
        assert_eq!(after(30), EndpointStep::Keep(None));
        let early = rule.after(Some(streak), &outcome(500), at(5));
        let longer = FailureStreak {
            first: at(5),
            last: at(20),
            failures: 6,
        };
        assert_eq!(early, EndpointStep::Keep(Some(longer)));
    }

    proptest! {
        /// An endpoint that is disabled had no success in the whole period before.
        #[test]
        fn endpoint_with_a_recent_success_is_never_disabled(
            attempts in proptest::collection::vec((0..400_i64, prop_oneof![9 => Just(500_u16), 1 => Just(200)]), 0..80),
        ) {
            let mut sorted = attempts;
            sorted.sort_unstable();
            if let Some((hour, _)) = run(&sorted) {
                let last = sorted.iter().position(|(at, _)| *at == hour).unwrap();
                let succeeded = sorted[..last].iter().any(|(at, status)| *status == 200 && hour - at < 120);
                prop_assert!(!succeeded);
            }
        }
    }
}
