use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tenantry_domain::kernel::StoreError;
use tokio::sync::oneshot;
use tokio::task::yield_now;

/// How many connections of a pool one party may use at once, so that none can keep all others waiting. A party is a tenant,
/// the unauthenticated callers of a tenant, or what has no tenant.
///
/// Requests beyond that wait behind those of the same party, and not in front of the pool. There is an entry only for each
/// party that uses or wants a connection just now.
#[derive(Debug)]
pub(super) struct Turns<P: Copy + Eq + Hash> {
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

/// Who of a party asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    /// One that was admitted.
    Member,
    /// One without a credential. Where the party has one turn at a time, members that wait go before it.
    Guest,
}

#[derive(Debug)]
struct State<P: Copy + Eq + Hash> {
    parties: HashMap<P, Party<P>>,
    lately: Lately<P>,
    /// The number of the next one who waits.
    next: u64,
}

#[derive(Debug)]
struct Party<P: Copy + Eq + Hash> {
    /// What is left of the part: connections, of which a turn takes one or two.
    free: usize,
    /// Who waits, in the order in which they get their turns.
    line: VecDeque<Waiter<P>>,
    /// How many turns there are.
    held: usize,
}

#[derive(Debug)]
struct Waiter<P: Copy + Eq + Hash> {
    id: u64,
    caller: Caller,
    takes: usize,
    start: oneshot::Sender<Turn<P>>,
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

/// A party's permission to use one connection.
#[derive(Debug)]
pub(super) struct Turn<P: Copy + Eq + Hash> {
    turns: Arc<Turns<P>>,
    party: P,
    takes: usize,
}

/// A request that waits for its turn. Dropped, it leaves the line.
struct Waiting<P: Copy + Eq + Hash> {
    turns: Arc<Turns<P>>,
    party: P,
    id: u64,
    in_line: bool,
    start: oneshot::Receiver<Turn<P>>,
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
                next: 0,
            }),
        }
    }

    /// Waits until the party may use another connection.
    ///
    /// Where it has one turn after the other while others are there, the thread looks in between whether one of those
    /// has sent something or has got an answer of the database. By itself a runtime does so after 61 tasks, and each of them
    /// may be a whole request, if the database answers fast enough.
    pub(super) async fn take(self: &Arc<Self>, party: P, caller: Caller) -> Result<Turn<P>, StoreError> {
        let mut waiting = self.line_up(party, caller)?;
        // The sender goes with its line only, and the line with the last one who waits.
        let turn = (&mut waiting.start).await;
        waiting.in_line = false;
        let turn = turn.map_err(|_| StoreError::Other("a turn was lost".into()))?;
        let once_more = self.state().lately.is_once_more(party, Instant::now());
        if once_more {
            yield_now().await;
        }
        Ok(turn)
    }

    fn line_up(self: &Arc<Self>, party: P, caller: Caller) -> Result<Waiting<P>, StoreError> {
        let mut state = self.state();
        let takes = match self.part {
            Part::Yielding(2..) if state.lately.has_others(party, Instant::now()) => 2,
            Part::Yielding(_) | Part::Fixed(_) => 1,
        };
        let (Part::Fixed(each) | Part::Yielding(each)) = self.part;
        let each = each.max(1);
        let id = state.next;
        state.next += 1;
        let entry = state.parties.entry(party).or_insert_with(|| Party {
            free: each,
            line: VecDeque::new(),
            held: 0,
        });
        if entry.held + entry.line.len() >= each + self.queue {
            let problem = "too many requests of this kind or tenant wait for the database";
            return Err(StoreError::Unavailable(problem.into()));
        }
        let (sender, start) = oneshot::channel();
        // With one turn at a time, a guest's turn is all that the party has.
        let one_at_a_time = each / takes == 1;
        let place = match caller {
            Caller::Member if one_at_a_time => entry.first_guest(),
            Caller::Member | Caller::Guest => entry.line.len(),
        };
        entry.line.insert(
            place,
            Waiter {
                id,
                caller,
                takes,
                start: sender,
            },
        );
        let waiting = Waiting {
            turns: Arc::clone(self),
            party,
            id,
            in_line: true,
            start,
        };
        self.grant(state, party);
        Ok(waiting)
    }

    /// Gives turns to those at the front of a party's line for whom there is something left, and drops the entry of a party
    /// that wants nothing.
    fn grant(self: &Arc<Self>, mut state: MutexGuard<'_, State<P>>, party: P) {
        let mut granted = Vec::new();
        if let Some(entry) = state.parties.get_mut(&party) {
            while let Some(waiter) = entry.line.pop_front_if(|waiter| waiter.takes <= entry.free) {
                entry.free -= waiter.takes;
                entry.held += 1;
                granted.push(waiter);
            }
            if entry.held == 0 && entry.line.is_empty() {
                state.parties.remove(&party);
            }
        }
        drop(state);
        for waiter in granted {
            let turn = Turn {
                turns: Arc::clone(self),
                party,
                takes: waiter.takes,
            };
            // Where the request has just gone away, the turn comes back and goes to the next one as it is dropped.
            drop(waiter.start.send(turn));
        }
    }
}

impl<P: Copy + Eq + Hash> Turns<P> {
    fn state(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Copy + Eq + Hash> Party<P> {
    /// The place in the line before all guests.
    fn first_guest(&self) -> usize {
        let is_guest = |waiter: &Waiter<P>| waiter.caller == Caller::Guest;
        self.line.iter().position(is_guest).unwrap_or(self.line.len())
    }
}

impl<P: Copy + Eq + Hash> Drop for Turn<P> {
    fn drop(&mut self) {
        let mut state = self.turns.state();
        if let Some(entry) = state.parties.get_mut(&self.party) {
            entry.free += self.takes;
            entry.held -= 1;
        }
        self.turns.grant(state, self.party);
    }
}

impl<P: Copy + Eq + Hash> Drop for Waiting<P> {
    /// One who was first in line may have been too much for what is left, and the next one may not be.
    fn drop(&mut self) {
        if !self.in_line {
            return;
        }
        let mut state = self.turns.state();
        let line = state.parties.get_mut(&self.party).map(|entry| &mut entry.line);
        let Some((line, place)) = line.and_then(|line| {
            let place = line.iter().position(|waiter| waiter.id == self.id)?;
            Some((line, place))
        }) else {
            return;
        };
        line.remove(place);
        self.turns.grant(state, self.party);
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

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};

    use tenantry_domain::kernel::TenantId;
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
        let mut take = pin!(turns.take(tenant(number), Caller::Member));
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
        drop(turns.take(tenant(2), Caller::Member).await.unwrap());
        let (mut sender, receiver) = std::os::unix::net::UnixStream::pair().unwrap();
        receiver.set_nonblocking(true).unwrap();
        let receiver = tokio::net::UnixStream::from_std(receiver).unwrap();
        let done = Arc::new(AtomicUsize::new(0));
        let noisy = (0..50).map(|_| {
            let (turns, done) = (Arc::clone(&turns), Arc::clone(&done));
            tokio::spawn(async move {
                let turn = turns.take(tenant(1), Caller::Member).await.unwrap();
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
        let first = turns.take(tenant(1), Caller::Member).await.unwrap();
        let mut second = Box::pin(turns.take(tenant(1), Caller::Member));
        assert!(
            second
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        assert!(matches!(
            turns.take(tenant(1), Caller::Member).await,
            Err(StoreError::Unavailable(_))
        ));
        drop(first);
        let second = second.await.unwrap();
        let waiting = Box::pin(turns.take(tenant(1), Caller::Member));
        drop(waiting);
        drop(second);
        assert!(turns.state().parties.is_empty());
    }

    /// Who of these, in the order in which they line up behind a guest that has its turn, gets its turn when. A guest is 'g',
    /// a member 'm'.
    fn order(turns: &Arc<Turns<TenantId>>, callers: &str) -> String {
        let take = |caller| match caller {
            'g' => turns.take(tenant(1), Caller::Guest),
            _ => turns.take(tenant(1), Caller::Member),
        };
        let mut context = Context::from_waker(Waker::noop());
        let mut first = Box::pin(take('g'));
        let Poll::Ready(Ok(first)) = first.as_mut().poll(&mut context) else {
            panic!("nobody has a turn yet");
        };
        let mut waiting: Vec<_> = callers
            .chars()
            .map(|caller| (caller, Box::pin(take(caller))))
            .collect();
        // Each lines up with the first poll.
        for (_, take) in &mut waiting {
            assert!(take.as_mut().poll(&mut context).is_pending());
        }
        drop(first);
        let mut order = String::new();
        while !waiting.is_empty() {
            let next = waiting.iter_mut().position(|(_, take)| {
                // Once more where the thread looks for others in between.
                (0..2).any(|_| take.as_mut().poll(&mut context).is_ready())
            });
            order.push(waiting.remove(next.unwrap()).0);
        }
        assert!(turns.state().parties.is_empty());
        order
    }

    /// Pools of one, two and three connections, where a turn may be all that a tenant has.
    #[test]
    fn members_go_before_guests_where_turns_come_one_at_a_time() {
        for size in [1_usize, 2, 3] {
            let turns = Arc::new(Turns::new(Part::Yielding(size.div_ceil(2)), 10));
            // Another tenant is there, so that two connections are one turn.
            drop(at_once(&turns, 2).unwrap());
            assert_eq!(order(&turns, "ggmgmm"), "mmmggg", "{size}");
        }
        let fixed = Arc::new(Turns::new(Part::Fixed(1), 10));
        assert_eq!(order(&fixed, "gmg"), "mgg");
    }

    #[test]
    fn guests_keep_their_place_where_there_are_several_turns() {
        let turns = Arc::new(Turns::new(Part::Yielding(4), 10));
        drop(at_once(&turns, 2).unwrap());
        let _both: Vec<_> = (0..2).map(|_| polled(&turns, 1, 2).unwrap().unwrap()).collect();
        let mut context = Context::from_waker(Waker::noop());
        let mut guest = Box::pin(turns.take(tenant(1), Caller::Guest));
        let _ = guest.as_mut().poll(&mut context);
        let mut member = Box::pin(turns.take(tenant(1), Caller::Member));
        let _ = member.as_mut().poll(&mut context);
        let line: Vec<_> = {
            let state = turns.state();
            let line = state.parties[&tenant(1)].line.iter();
            line.map(|waiter| waiter.caller).collect()
        };
        assert_eq!(line, [Caller::Guest, Caller::Member]);
    }

    #[test]
    fn one_who_stops_waiting_holds_up_nobody() {
        let turns = Arc::new(Turns::new(Part::Yielding(3), 10));
        let mut context = Context::from_waker(Waker::noop());
        let alone = at_once(&turns, 1).unwrap().unwrap();
        drop(at_once(&turns, 2).unwrap());
        let both = polled(&turns, 1, 2).unwrap().unwrap();
        assert_eq!((alone.takes, both.takes), (1, 2));
        let mut first = Box::pin(turns.take(tenant(1), Caller::Member));
        let mut second = Box::pin(turns.take(tenant(1), Caller::Member));
        assert!(first.as_mut().poll(&mut context).is_pending());
        assert!(second.as_mut().poll(&mut context).is_pending());
        drop(both);
        drop(first);
        assert!((0..2).any(|_| second.as_mut().poll(&mut context).is_ready()));
        drop((second, alone));
        assert!(turns.state().parties.is_empty());
    }
}
