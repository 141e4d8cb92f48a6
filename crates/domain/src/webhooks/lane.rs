//! Lanes: each endpoint has one, and the server that has leased it sends all messages of the endpoint meanwhile. So the number of requests in
//! flight, the rate and the order of an endpoint are kept by one process, and a crash costs the rest of a lease.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::kernel::{StoreError, SystemScope, TenantId, Time, WebhookEndpointId};
use crate::webhooks::outcome::{DeliveryOutcome, DeliveryPhase};

/// The time over which the rate of an endpoint is averaged: as many attempts as it has in this time may be made at once.
const BURST: Duration = Duration::from_secs(1);

/// How long an endpoint rests that was too slow with a single request in flight. A server that is away would hold a place of the
/// dispatcher for the whole timeout of each message.
const REST: Duration = Duration::from_secs(10);

/// A success that took this long gives an endpoint no further request at once.
const SLOW: Duration = Duration::from_secs(2);

/// A success that took this long halves what an endpoint gets at once, as a timeout does.
const TOO_SLOW: Duration = Duration::from_secs(5);

/// How the lane of an endpoint goes on: how much is sent at once, and from when on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneState {
    /// How many requests may be in flight.
    pub window: u32,
    /// Until when the rate is used up, by attempts that were made: a time of the generic cell rate algorithm.
    pub paced_until: Option<Time>,
    /// Until when nothing is sent, because the receiver was too slow or has asked for it.
    pub rests_until: Option<Time>,
}

impl Default for LaneState {
    fn default() -> Self {
        Self {
            window: Self::WIDEST,
            paced_until: None,
            rests_until: None,
        }
    }
}

impl LaneState {
    /// The most requests in flight to one endpoint.
    pub const WIDEST: u32 = 8;

    /// The requests in flight to an endpoint that has not answered yet.
    pub const NEW: u32 = 2;

    /// Whether the endpoint is slow, or has not shown yet that it is not. Such endpoints share half of the places of a server, so that however
    /// many they are, others have the other half.
    pub const fn is_narrow(&self) -> bool {
        self.window <= Self::NEW
    }

    /// Takes over the outcome of an attempt, and how long it took. A receiver that is too slow or has too much to do gets half as much at once,
    /// and one request more after each success that was not slow. A wait that it asks for holds for all messages of the endpoint.
    pub fn attempted(&mut self, outcome: &DeliveryOutcome, latency: Duration, now: Time) {
        let asked = outcome.answer().and_then(|answer| answer.retry_after);
        match outcome {
            DeliveryOutcome::Delivered(_) if latency >= TOO_SLOW => self.window = (self.window / 2).max(1),
            DeliveryOutcome::Delivered(_) if latency >= SLOW => {}
            DeliveryOutcome::Delivered(_) => self.window = (self.window + 1).min(Self::WIDEST),
            DeliveryOutcome::TimedOut(DeliveryPhase::Connect | DeliveryPhase::Head) => self.narrow(now),
            DeliveryOutcome::Refused(_) if outcome.is_overloaded() => {
                self.narrow(now);
                self.rest(asked.unwrap_or_default(), now);
            }
            DeliveryOutcome::Refused(_)
            | DeliveryOutcome::Gone(_)
            | DeliveryOutcome::ConnectionFailed(_)
            | DeliveryOutcome::ForbiddenAddress
            | DeliveryOutcome::NameNotFound => {}
        }
    }

    /// Halves the window. Where it cannot be less, the endpoint rests.
    fn narrow(&mut self, now: Time) {
        if self.window > 1 {
            self.window /= 2;
        } else {
            self.rest(REST, now);
        }
    }

    fn rest(&mut self, wait: Duration, now: Time) {
        if !wait.is_zero() {
            self.rests_until = self.rests_until.max(Some(now + wait));
        }
    }

    /// Takes an attempt from the rate, in attempts of a second; without a rate there is always one. Returns whether it may be made.
    pub fn take(&mut self, rate: Option<u32>, now: Time) -> bool {
        let Some(rate) = rate.filter(|rate| *rate > 0) else {
            return true;
        };
        let each = BURST / rate;
        let begin = self.paced_until.map_or(now, |until| until.max(now));
        if begin + each > now + BURST {
            return false;
        }
        self.paced_until = Some(begin + each);
        true
    }

    /// The time before which nothing may be sent, if there is one.
    pub fn not_before(&self, rate: Option<u32>, now: Time) -> Option<Time> {
        let rate = rate.filter(|rate| *rate > 0);
        let paced = rate.and_then(|rate| Some(self.paced_until? + BURST / rate - BURST));
        self.rests_until.max(paced).filter(|until| *until > now)
    }
}

/// A lane that was leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane {
    /// The endpoint whose messages it has.
    pub endpoint: WebhookEndpointId,
    /// How it goes on.
    pub state: LaneState,
}

/// The right to send the messages of endpoints, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneLease {
    /// Identifies it.
    pub id: Uuid,
    /// For how long it stands, by the clock of the database. Each transaction that stores results extends it.
    pub seconds: u32,
}

/// The lanes of the scope's tenant.
#[async_trait]
pub trait WebhookLanes: Send {
    /// Leases up to `limit` lanes that are due, those that have waited longest for their turn first; without narrow ones unless `narrow`.
    async fn take(
        &mut self,
        lease: LaneLease,
        (limit, narrow): (u32, bool),
        now: Time,
    ) -> Result<Vec<Lane>, StoreError>;

    /// Extends a lease, and locks the lane until the end of the transaction. Returns whether the lease still stands: what a former holder
    /// has found is not stored, and its messages are sent again.
    async fn hold(&mut self, endpoint: WebhookEndpointId, lease: LaneLease) -> Result<bool, StoreError>;

    /// Gives a lane back that is locked by [`WebhookLanes::hold`]. It is due again when the next of its deliveries is, in `ordered` lanes
    /// that of the first event, and not before `not_before`.
    async fn release(
        &mut self,
        lane: &Lane,
        (ordered, not_before): (bool, Option<Time>),
        now: Time,
    ) -> Result<(), StoreError>;

    /// Makes the lane of an endpoint due at once, also one that rests.
    async fn wake(&mut self, endpoint: WebhookEndpointId, now: Time) -> Result<(), StoreError>;
}

/// The lanes of all tenants: whose are due, and nothing of what is sent.
#[async_trait]
pub trait DueLanes: Send + Sync {
    /// Up to `limit` tenants with a lane that is due and not leased, without `except`: those that have waited longest for their turn first.
    /// Narrow lanes ([`LaneState::is_narrow`]) count if `narrow`.
    async fn tenants(
        &self,
        because: SystemScope,
        (limit, except, narrow): (u32, &[TenantId], bool),
        now: Time,
    ) -> Result<Vec<TenantId>, StoreError>;

    /// How many lanes are due and since when the one that has waited longest is, leased or not.
    async fn backlog(&self, because: SystemScope, now: Time) -> Result<Backlog, StoreError>;
}

/// What is due of all tenants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many endpoints have something due.
    pub endpoints: u64,
    /// Since when the oldest attempt is due.
    pub since: Option<Time>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::webhooks::outcome::Answer;

    fn at(millis: u64) -> Time {
        Time::UNIX_EPOCH + Duration::from_millis(millis)
    }

    fn answer(status: u16, retry_after: Option<u64>) -> DeliveryOutcome {
        DeliveryOutcome::of(Answer {
            status,
            retry_after: retry_after.map(Duration::from_secs),
            excerpt: String::new(),
        })
    }

    #[test]
    fn slow_receiver_gets_less_at_once_and_rests() {
        let mut lane = LaneState::default();
        let slow = DeliveryOutcome::TimedOut(DeliveryPhase::Head);
        let windows: Vec<u32> = (0..3)
            .map(|_| {
                lane.attempted(&slow, TOO_SLOW, at(0));
                lane.window
            })
            .collect();
        assert_eq!((windows, lane.rests_until), (vec![4, 2, 1], None));
        lane.attempted(&slow, TOO_SLOW, at(0));
        assert_eq!((lane.window, lane.not_before(None, at(0))), (1, Some(at(10_000))));
        assert_eq!(lane.not_before(None, at(10_000)), None);
        lane.attempted(&answer(200, None), Duration::ZERO, at(10_000));
        lane.attempted(&answer(500, None), Duration::ZERO, at(10_000));
        assert_eq!(lane.window, 2);
    }

    /// A receiver that accepts everything just before the timeout would hold its places for ever.
    #[test]
    fn receiver_that_accepts_slowly_gets_less_at_once() {
        let mut lane = LaneState::default();
        let mut after = |seconds| {
            lane.attempted(&answer(200, None), Duration::from_secs(seconds), at(0));
            (lane.window, lane.is_narrow())
        };
        let slow = [14, 14, 14, 14].map(&mut after);
        assert_eq!(slow, [(4, false), (2, true), (1, true), (1, true)]);
        assert_eq!([3, 3].map(&mut after), [(1, true), (1, true)]);
        assert_eq!([0, 1].map(&mut after), [(2, true), (3, false)]);
        assert_eq!(lane.rests_until, None);
    }

    #[test]
    fn wait_that_a_receiver_asks_for_holds_for_the_endpoint() {
        let mut lane = LaneState::default();
        lane.attempted(&answer(429, Some(90)), Duration::ZERO, at(0));
        lane.attempted(&answer(503, Some(30)), Duration::ZERO, at(0));
        assert_eq!(lane.not_before(None, at(0)), Some(at(90_000)));
        let mut lane = LaneState::default();
        lane.attempted(&answer(500, Some(90)), Duration::ZERO, at(0));
        assert_eq!(lane.not_before(None, at(0)), None);
    }

    #[test]
    fn rate_is_averaged_over_a_second() {
        let mut lane = LaneState::default();
        let taken = |lane: &mut LaneState, now| (0..100).filter(|_| lane.take(Some(4), at(now))).count();
        assert_eq!(taken(&mut lane, 0), 4);
        assert_eq!(lane.not_before(Some(4), at(0)), Some(at(250)));
        assert_eq!((taken(&mut lane, 249), taken(&mut lane, 250)), (0, 1));
        assert_eq!(taken(&mut lane, 5_000), 4);
        let mut lane = LaneState::default();
        assert_eq!((0..100).filter(|_| lane.take(None, at(0))).count(), 100);
        assert_eq!(lane, LaneState::default());
    }

    proptest! {
        #[test]
        fn rate_is_kept_over_any_period(rate in 1..50_u32, steps in proptest::collection::vec(0..400_u64, 1..60)) {
            let (mut lane, mut now, mut taken) = (LaneState::default(), 0, 0);
            for step in steps {
                now += step;
                while lane.take(Some(rate), at(now)) {
                    taken += 1;
                }
                prop_assert!(lane.not_before(Some(rate), at(now)).is_some());
            }
            let most = u64::from(rate) * (now + 1_000) / 1_000 + 1;
            prop_assert!(taken <= most, "{} of {}", taken, most);
        }
    }
}
