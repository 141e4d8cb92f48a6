use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tenantry_domain::StoreError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;

/// How many connections of a pool one party may use at once, so that none can keep all others waiting. A party is a tenant,
/// the unauthenticated callers of a tenant, or what has no tenant.
///
/// Requests beyond that wait behind those of the same party, and not in front of the pool. There is an entry only for each
/// party that uses or wants a connection just now.
#[derive(Debug)]
pub(super) struct Turns<P> {
    part: Part,
    /// How many requests of one party wait at the most; the next one is refused at once.
    queue: usize,
    state: Mutex<State<P>>,
}

/// How many connections a party may use at once; none stands for one.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// So many, whoever else is there.
    Fixed(usize),
    /// So many while it is alone, and half of them (rounded down) while other tenants are there: what they send is answered
    /// nearly as fast then as if they were alone.
    Yielding(usize),
}

#[derive(Debug)]
struct State<P> {
    parties: HashMap<P, Party>,
    lately: Lately<P>,
}

#[derive(Debug)]
struct Party {
    connections: Arc<Semaphore>,
    /// How many have one or wait for one.
    interested: usize,
}

/// Who has had turns.
#[derive(Debug)]
struct Lately<P> {
    last: Option<(P, Instant)>,
    /// When another party than that had one.
    other: Option<Instant>,
}

/// So long a party counts as one that is there after it has had a turn.
const THERE: Duration = Duration::from_secs(5);

/// A party's leave to use one connection.
pub(super) struct Turn<P: Eq + Hash> {
    // In this order: the permit goes to the next one before the entry may go.
    _permit: OwnedSemaphorePermit,
    _interest: Interest<P>,
}

/// A request that has a connection or waits for one.
struct Interest<P: Eq + Hash> {
    turns: Arc<Turns<P>>,
    party: P,
}

impl<P: Copy + Eq + Hash> Turns<P> {
    /// A part for each party, and a queue of so many.
    pub(super) fn new(part: Part, queue: usize) -> Self {
        Self {
            part,
            queue,
            state: Mutex::new(State {
                parties: HashMap::new(),
                lately: Lately::default(),
            }),
        }
    }

    /// Waits until the party may use another connection.
    ///
    /// Where it has one turn after the other while others are there, the thread looks in between whether one of those
    /// has sent something or has got an answer of the database. By itself a runtime does so after 61 tasks, and each of them
    /// may be a whole request, if the database answers fast enough.
    pub(super) async fn take(self: &Arc<Self>, party: P) -> Result<Turn<P>, StoreError> {
        let (connections, permits, interest) = self.line_up(party)?;
        let permit = connections.acquire_many_owned(permits).await;
        let turn = Turn {
            _permit: permit.map_err(|error| StoreError::Other(error.to_string()))?,
            _interest: interest,
        };
        let once_more = self.state().lately.is_once_more(party, Instant::now());
        if once_more {
            yield_now().await;
        }
        Ok(turn)
    }

    fn line_up(self: &Arc<Self>, party: P) -> Result<(Arc<Semaphore>, u32, Interest<P>), StoreError> {
        let mut state = self.state();
        let permits = match self.part {
            Part::Yielding(2..) if state.lately.has_others(party, Instant::now()) => 2,
            Part::Yielding(_) | Part::Fixed(_) => 1,
        };
        let (Part::Fixed(each) | Part::Yielding(each)) = self.part;
        let each = each.max(1);
        let entry = state.parties.entry(party).or_insert_with(|| Party {
            connections: Arc::new(Semaphore::new(each)),
            interested: 0,
        });
        if entry.interested >= each + self.queue {
            let problem = "too many requests of this kind or tenant wait for the database";
            return Err(StoreError::Unavailable(problem.into()));
        }
        entry.interested += 1;
        let interest = Interest {
            turns: Arc::clone(self),
            party,
        };
        Ok((Arc::clone(&entry.connections), permits, interest))
    }
}

impl<P> Turns<P> {
    fn state(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P> Default for Lately<P> {
    fn default() -> Self {
        Self {
            last: None,
            other: None,
        }
    }
}

impl<P: Copy + Eq> Lately<P> {
    /// Whether other parties than this one are there.
    fn has_others(&self, party: P, now: Instant) -> bool {
        let another = match self.last {
            Some((last, at)) if last != party => Some(at),
            Some(_) | None => self.other,
        };
        another.is_some_and(|at| now.saturating_duration_since(at) < THERE)
    }

    /// Notes a party's turn, and says whether it had the last one too while others are there.
    fn is_once_more(&mut self, party: P, now: Instant) -> bool {
        match self.last.replace((party, now)) {
            Some((last, _)) if last == party => self.has_others(party, now),
            before => {
                self.other = before.map(|(_, at)| at);
                false
            }
        }
    }
}

impl<P: Eq + Hash> Drop for Interest<P> {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        if let Some(entry) = state.parties.get_mut(&self.party) {
            entry.interested -= 1;
            if entry.interested == 0 {
                state.parties.remove(&self.party);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};

    use tenantry_domain::TenantId;
    use uuid::Uuid;

    use super::*;

    fn tenant(number: u128) -> TenantId {
        Uuid::from_u128(number).into()
    }

    /// The turn, if it is to be had without waiting.
    fn at_once(turns: &Arc<Turns<TenantId>>, number: u128) -> Option<Result<Turn<TenantId>, StoreError>> {
        polled(turns, number, 1)
    }

    fn polled(
        turns: &Arc<Turns<TenantId>>,
        number: u128,
        times: usize,
    ) -> Option<Result<Turn<TenantId>, StoreError>> {
        let mut take = pin!(turns.take(tenant(number)));
        let mut context = Context::from_waker(Waker::noop());
        (0..times).find_map(|_| match take.as_mut().poll(&mut context) {
            Poll::Ready(turn) => Some(turn),
            Poll::Pending => None,
        })
    }

    /// How many turns the tenant has at once, whether or not others are looked for in between.
    fn at_the_most(turns: &Arc<Turns<TenantId>>, number: u128) -> usize {
        let held: Vec<_> = std::iter::from_fn(|| polled(turns, number, 2)).collect();
        held.len()
    }

    #[test]
    fn a_tenant_gets_its_part_and_another_tenant_its_own() {
        let turns = Arc::new(Turns::new(Part::Fixed(2), 10));
        let held: Vec<_> = (0..2).map(|_| at_once(&turns, 1).unwrap().unwrap()).collect();
        assert!(at_once(&turns, 1).is_none());
        assert!(at_once(&turns, 2).is_some());
        drop(held);
        assert!(at_once(&turns, 1).is_some());
        assert!(turns.state().parties.is_empty(), "nobody is interested any more");
    }

    #[test]
    fn beside_others_a_tenant_makes_do_with_half_of_its_part_but_never_with_none() {
        for (part, alone, beside) in [
            (Part::Yielding(5), 5, 2),
            (Part::Yielding(2), 2, 1),
            (Part::Yielding(1), 1, 1),
            (Part::Fixed(2), 2, 2),
        ] {
            let turns = Arc::new(Turns::new(part, 10));
            assert_eq!(at_the_most(&turns, 1), alone, "{part:?}");
            drop(at_once(&turns, 2));
            assert_eq!(at_the_most(&turns, 1), beside, "{part:?}");
        }
    }

    #[test]
    fn others_are_there_for_a_while() {
        let (mut lately, began) = (Lately::default(), Instant::now());
        let (one, other) = (tenant(1), tenant(2));
        assert!(!lately.has_others(one, began));
        assert!(!lately.is_once_more(one, began) && !lately.is_once_more(one, began));
        assert!(!lately.is_once_more(other, began), "it had not the last one");
        let late = began + THERE - Duration::from_nanos(1);
        assert!(!lately.is_once_more(one, late), "nor had this one");
        assert!(lately.is_once_more(one, late));
        assert!(lately.has_others(other, late) && lately.has_others(one, late));
        assert!(!lately.is_once_more(one, began + THERE), "the other one has gone");
        assert!(
            lately.has_others(other, began + THERE),
            "and finds this one there"
        );
    }

    #[tokio::test]
    async fn between_two_turns_of_a_tenant_the_thread_looks_what_others_have_sent() {
        let turns = Arc::new(Turns::new(Part::Yielding(2), 1_000));
        drop(turns.take(tenant(2)).await.unwrap());
        let (mut sender, receiver) = std::os::unix::net::UnixStream::pair().unwrap();
        receiver.set_nonblocking(true).unwrap();
        let receiver = tokio::net::UnixStream::from_std(receiver).unwrap();
        let done = Arc::new(AtomicUsize::new(0));
        let noisy = (0..50).map(|_| {
            let (turns, done) = (Arc::clone(&turns), Arc::clone(&done));
            tokio::spawn(async move {
                let turn = turns.take(tenant(1)).await.unwrap();
                done.fetch_add(1, Ordering::Relaxed);
                drop(turn);
            })
        });
        let noisy: Vec<_> = noisy.collect();
        let seen = Arc::clone(&done);
        let quiet = tokio::spawn(async move {
            receiver.readable().await.unwrap();
            seen.load(Ordering::Relaxed)
        });
        std::io::Write::write_all(&mut sender, b"!").unwrap();
        let before = quiet.await.unwrap();
        assert!(before <= 2, "{before} turns of another tenant came first");
        for one in noisy {
            one.await.unwrap();
        }
        assert_eq!(done.load(Ordering::Relaxed), 50);
    }

    #[tokio::test]
    async fn whoever_waits_gets_the_next_one_and_nobody_waits_behind_a_full_queue() {
        let turns = Arc::new(Turns::new(Part::Fixed(1), 1));
        let first = turns.take(tenant(1)).await.unwrap();
        let mut second = Box::pin(turns.take(tenant(1)));
        assert!(
            second
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        assert!(matches!(
            turns.take(tenant(1)).await,
            Err(StoreError::Unavailable(_))
        ));
        drop(first);
        let second = second.await.unwrap();
        let waiting = Box::pin(turns.take(tenant(1)));
        drop(waiting);
        drop(second);
        assert!(turns.state().parties.is_empty());
    }
}
