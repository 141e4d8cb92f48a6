use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tenantry_domain::{CallerGroup, HashingCaller, Network, PasswordError};
use tokio::sync::oneshot;

/// Runs blocking work off the async threads: so many pieces at once, so many waiting, and shared fairly.
///
/// Hashing takes a core and megabytes of memory for tens of milliseconds. Without a bound, a burst of logins would take
/// every core and all memory; without a bound on the waiting, every login would time out instead of a few.
///
/// Of all places (running and waiting) a group has at most a quarter, and so has a network of IPv4 and a /64 or /56 of
/// IPv6; a /48 has half of them. Groups take turns. When all places are taken, a group with few of them takes the last
/// place of the group with the most. So whatever one tenant or one network asks for, others wait for a few pieces at most.
#[derive(Debug, Clone)]
pub(crate) struct FairQueue(Arc<Mutex<State>>);

impl FairQueue {
    /// `at_once` pieces run at the same time, at least one; `queue` more may wait.
    pub(crate) fn new(at_once: usize, queue: usize) -> Self {
        let at_once = at_once.max(1);
        Self(Arc::new(Mutex::new(State {
            at_once,
            places: at_once.saturating_add(queue),
            next: 0,
            running: HashSet::new(),
            held: HashMap::new(),
            taken: 0,
            waiting: HashMap::new(),
            round: VecDeque::new(),
        })))
    }

    /// Does the work when the caller's turn comes.
    ///
    /// The place moves into the work: blocking work cannot be stopped, so a caller that goes away must not make room for
    /// another piece while the first still runs.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] when the caller gets no place, or loses it to a group that has fewer;
    /// [`PasswordError::Failed`] when the work panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        caller: &HashingCaller,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let (place, turn) = self.enter(caller).ok_or(PasswordError::Busy)?;
        turn.await.map_err(|_| PasswordError::Busy)?;
        let task = tokio::task::spawn_blocking(move || {
            let _held = place;
            work()
        });
        task.await
            .map_err(|error| PasswordError::Failed(error.to_string()))
    }

    /// A place, and the word that its turn has come.
    fn enter(&self, caller: &HashingCaller) -> Option<(Place, oneshot::Receiver<()>)> {
        let mut state = self.state();
        let shares = shares(caller);
        if shares.iter().any(|share| state.is_used_up(*share)) {
            return None;
        }
        if state.taken >= state.places && !state.displace_for(caller.group) {
            return None;
        }
        let id = state.next;
        state.next += 1;
        state.taken += 1;
        for share in &shares {
            *state.held.entry(*share).or_default() += 1;
        }
        let (start, turn) = oneshot::channel();
        let group = caller.group;
        let line = state.waiting.entry(group).or_default();
        line.push_back((id, start));
        if line.len() == 1 {
            state.round.push_back(group);
        }
        state.start_next();
        let queue = self.clone();
        drop(state);
        let place = Place {
            queue,
            id,
            group,
            shares,
        };
        Some((place, turn))
    }

    /// State is changed by code that does not panic, so that a panic elsewhere cannot have left half of a change behind.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many pieces could start now.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        let state = self.state();
        state.at_once - state.running.len()
    }
}

/// What only a part of all places is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Share {
    Group(CallerGroup),
    Network(Network),
}

/// Operators are alone in their queue, so as a group they may have all of it.
fn shares(caller: &HashingCaller) -> Vec<Share> {
    let group = match caller.group {
        CallerGroup::Operator => None,
        group @ (CallerGroup::Tenant(_) | CallerGroup::SignUp) => Some(Share::Group(group)),
    };
    let networks = caller.networks.iter().copied().map(Share::Network);
    group.into_iter().chain(networks).collect()
}

#[derive(Debug)]
struct State {
    at_once: usize,
    places: usize,
    /// The number of the next place.
    next: u64,
    /// The places whose turn has come.
    running: HashSet<u64>,
    /// How many places each share has; none is missing.
    held: HashMap<Share, usize>,
    /// How many places are taken.
    taken: usize,
    /// Who waits, by group, the longest first; no line is empty.
    waiting: HashMap<CallerGroup, VecDeque<(u64, oneshot::Sender<()>)>>,
    /// The groups that wait, the next one first.
    round: VecDeque<CallerGroup>,
}

impl State {
    fn is_used_up(&self, share: Share) -> bool {
        let part = match share {
            Share::Network(network) if network.bits() == Network::WIDEST_V6 => 2,
            Share::Group(_) | Share::Network(_) => 4,
        };
        let most = (self.places / part).max(1);
        self.held.get(&share).is_some_and(|held| *held >= most)
    }

    /// Takes the last place of the group that waits for the most, when it would still wait for more than this one.
    fn displace_for(&mut self, group: CallerGroup) -> bool {
        let own = self.waiting.get(&group).map_or(0, VecDeque::len);
        let longest = self.waiting.iter().max_by_key(|(_, line)| line.len());
        let Some((&other, _)) = longest.filter(|(_, line)| line.len() > own + 1) else {
            return false;
        };
        let last = self
            .waiting
            .get(&other)
            .and_then(VecDeque::back)
            .map(|(id, _)| *id);
        // The sender goes, which tells the caller; its place is given back when that caller drops it.
        last.is_some_and(|id| self.leave(other, id))
    }

    /// Takes a place out of its line; whether it was there.
    fn leave(&mut self, group: CallerGroup, id: u64) -> bool {
        let Some(line) = self.waiting.get_mut(&group) else {
            return false;
        };
        let before = line.len();
        line.retain(|(waiting, _)| *waiting != id);
        let left = line.len() < before;
        if line.is_empty() {
            self.waiting.remove(&group);
            self.round.retain(|waiting| *waiting != group);
        }
        left
    }

    fn start_next(&mut self) {
        while self.running.len() < self.at_once
            && let Some(group) = self.round.pop_front()
        {
            let Some(line) = self.waiting.get_mut(&group) else {
                continue;
            };
            let first = line.pop_front();
            if line.is_empty() {
                self.waiting.remove(&group);
            } else {
                self.round.push_back(group);
            }
            if let Some((id, start)) = first {
                self.running.insert(id);
                // A caller that has just gone away drops its place, which starts the next.
                let _ = start.send(());
            }
        }
    }
}

/// A place in the queue, running or waiting, until it is dropped.
#[derive(Debug)]
struct Place {
    queue: FairQueue,
    id: u64,
    group: CallerGroup,
    shares: Vec<Share>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        if !state.running.remove(&self.id) {
            state.leave(self.group, self.id);
        }
        state.taken -= 1;
        for share in &self.shares {
            if let Some(held) = state.held.get_mut(share) {
                *held -= 1;
                if *held == 0 {
                    state.held.remove(share);
                }
            }
        }
        state.start_next();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    fn tenant(number: u128) -> HashingCaller {
        HashingCaller::new(CallerGroup::Tenant(Uuid::from_u128(number).into()), None)
    }

    fn from(number: u128, address: &str) -> HashingCaller {
        let networks = Network::of(Some(address.parse().unwrap()));
        HashingCaller {
            networks,
            ..tenant(number)
        }
    }

    /// A piece of work that runs until the sender is dropped, and the word that it has begun.
    fn held() -> (
        mpsc::Sender<()>,
        oneshot::Receiver<()>,
        impl FnOnce() + Send + 'static,
    ) {
        let (release, released) = mpsc::channel::<()>();
        let (begin, begun) = oneshot::channel();
        let work = move || {
            begin.send(()).ok();
            released.recv().ok();
        };
        (release, begun, work)
    }

    /// How many of so many attempts of a caller get a place, which they keep.
    fn enters(
        queue: &FairQueue,
        caller: &HashingCaller,
        attempts: usize,
    ) -> Vec<(Place, oneshot::Receiver<()>)> {
        (0..attempts).filter_map(|_| queue.enter(caller)).collect()
    }

    #[tokio::test]
    async fn never_more_at_once_than_allowed() {
        let queue = FairQueue::new(2, 1_000);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..20)
            .map(|number| {
                let (queue, running, most) = (queue.clone(), Arc::clone(&running), Arc::clone(&most));
                tokio::spawn(async move {
                    let work = move || {
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(2));
                        running.fetch_sub(1, Ordering::SeqCst);
                    };
                    queue.run(&tenant(number % 3), work).await
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), 2);
        assert_eq!(queue.free(), 2);
        assert!(queue.state().held.is_empty() && queue.state().waiting.is_empty());
    }

    #[test]
    fn a_tenant_has_a_quarter_of_the_places_and_others_the_rest() {
        let queue = FairQueue::new(2, 62);
        let flood = enters(&queue, &tenant(1), 100);
        assert_eq!(flood.len(), 16);
        assert_eq!(enters(&queue, &tenant(2), 1).len(), 1);
    }

    #[test]
    fn networks_have_a_part_of_the_places_whatever_tenant_they_name() {
        let queue = FairQueue::new(2, 62);
        let mut flood = Vec::new();
        // Each of these addresses is in a /64 of its own, of one /56, and names a tenant of its own.
        for number in 0..100 {
            let caller = from(number, &format!("2001:db8:0:{number:x}::1"));
            flood.extend(queue.enter(&caller));
        }
        assert_eq!(flood.len(), 16);
        // Other /56 of the same /48.
        for number in 0..100 {
            let caller = from(1_000 + number, &format!("2001:db8:0:{:x}00::1", number + 1));
            flood.extend(queue.enter(&caller));
        }
        assert_eq!(flood.len(), 32);
        for number in 0..100 {
            flood.extend(queue.enter(&from(2_000 + number, &format!("203.0.113.{number}"))));
        }
        assert_eq!(flood.len(), 48);
        assert!(queue.enter(&from(3, "198.51.100.7")).is_some());
        assert!(queue.enter(&from(3, "2001:db8:1::1")).is_some());
    }

    #[tokio::test]
    async fn groups_take_turns() {
        let queue = FairQueue::new(1, 63);
        let mut flood = enters(&queue, &tenant(1), 100);
        let (second, mut second_turn) = queue.enter(&tenant(2)).unwrap();
        let (third, mut third_turn) = queue.enter(&tenant(3)).unwrap();
        assert!(flood[0].1.try_recv().is_ok(), "the first one runs");
        assert!(second_turn.try_recv().is_err());
        flood.remove(0);
        // One more of the first tenant, which was first in the round, and then the others.
        assert!(flood[0].1.try_recv().is_ok());
        flood.remove(0);
        assert!(second_turn.try_recv().is_ok());
        drop(second);
        assert!(third_turn.try_recv().is_ok());
        drop(third);
        assert!(flood[0].1.try_recv().is_ok());
    }

    #[test]
    fn a_group_with_few_places_displaces_the_last_of_the_longest_line() {
        let queue = FairQueue::new(1, 11);
        let mut flood: Vec<_> = (0..4)
            .flat_map(|number| enters(&queue, &tenant(number), 100))
            .collect();
        assert_eq!(flood.len(), 12);
        let newcomer = queue.enter(&tenant(9));
        assert!(newcomer.is_some());
        let displaced = |turn: &mut oneshot::Receiver<()>| {
            matches!(turn.try_recv(), Err(oneshot::error::TryRecvError::Closed))
        };
        let gone = flood
            .iter_mut()
            .filter_map(|(_, turn)| displaced(turn).then_some(()));
        assert_eq!(gone.count(), 1);
        drop((flood, newcomer));
        assert_eq!((queue.free(), queue.state().taken), (1, 0));
        assert!(queue.state().held.is_empty() && queue.state().round.is_empty());
    }

    #[tokio::test]
    async fn is_busy_when_the_queue_is_full_and_recovers() {
        let queue = FairQueue::new(1, 1);
        let (release, begun, work) = held();
        let first = tokio::spawn({
            let queue = queue.clone();
            async move { queue.run(&tenant(1), work).await }
        });
        begun.await.unwrap();
        let second = tenant(2);
        let mut waiting = Box::pin(queue.run(&second, || 2));
        assert!(poll_once(&mut waiting).await.is_none());
        assert!(matches!(
            queue.run(&tenant(3), || 3).await,
            Err(PasswordError::Busy)
        ));

        drop(release);
        first.await.unwrap().unwrap();
        assert_eq!(waiting.await.unwrap(), 2);
        assert_eq!(queue.run(&tenant(3), || 4).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn a_caller_that_leaves_the_queue_frees_the_place() {
        let queue = FairQueue::new(1, 1);
        let (release, begun, work) = held();
        let running = tokio::spawn({
            let queue = queue.clone();
            async move { queue.run(&tenant(1), work).await }
        });
        begun.await.unwrap();
        let second = tenant(2);
        let mut waiting = Box::pin(queue.run(&second, || ()));
        assert!(poll_once(&mut waiting).await.is_none());
        drop(waiting);
        let mut next = Box::pin(queue.run(&second, || ()));
        assert!(poll_once(&mut next).await.is_none());
        drop(release);
        running.await.unwrap().unwrap();
        next.await.unwrap();
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_frees_nothing_before_the_work_ends() {
        let queue = FairQueue::new(1, 0);
        let (release, begun, work) = held();
        let caller = tokio::spawn({
            let queue = queue.clone();
            async move { queue.run(&tenant(1), work).await }
        });
        begun.await.unwrap();
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        assert_eq!(queue.free(), 0);
        assert!(matches!(
            queue.run(&tenant(2), || ()).await,
            Err(PasswordError::Busy)
        ));

        drop(release);
        while queue.free() == 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_and_frees_the_turn() {
        let queue = FairQueue::new(1, 0);
        let outcome = queue.run(&tenant(1), || panic!("on purpose")).await;
        assert!(matches!(outcome, Err::<(), _>(PasswordError::Failed(_))));
        queue.run(&tenant(1), || ()).await.unwrap();
    }

    /// Polls once; `None` when it is not ready.
    async fn poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
                std::task::Poll::Ready(value) => Some(value),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
