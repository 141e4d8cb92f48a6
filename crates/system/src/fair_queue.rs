use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tenantry_domain::identity::{CallerClass, CallerGroup, HashingCaller, PasswordError};
use tenantry_domain::kernel::Network;
use tokio::sync::oneshot;

/// Runs blocking work off the async threads: so many pieces at once, so many waiting, and shared fairly.
///
/// Hashing takes a core and megabytes of memory for tens of milliseconds. Without a bound, a burst of logins would take
/// every core and all memory; without a bound on the waiting, every login would time out instead of a few.
///
/// Of all places (running and waiting) a group has at most a quarter, and so has a network of IPv4 and a /64 or /56 of
/// IPv6; a /48 has half of them. Each of these shares is at least one place more than run at once, where there are so many.
/// The two classes of callers take turns, within a class its groups do, and within a group its networks. When all places
/// of a share or of the queue are taken, a newcomer displaces a waiting caller there: of the class with the most places,
/// within a class of the group with the most, and within a group of the network with the most. When all groups hold
/// alike, it displaces one of the network with the most, whatever groups that network names. So whatever one tenant, one
/// network or guests from many networks ask for, others wait for a few pieces at most.
#[derive(Debug, Clone)]
pub(crate) struct FairQueue(Arc<Mutex<State>>);

impl FairQueue {
    /// `at_once` pieces run at the same time, at least one; `queue` more may wait.
    pub(crate) fn new(at_once: usize, queue: usize) -> Self {
        let at_once = at_once.max(1);
        Self(Arc::new(Mutex::new(State {
            at_once,
            size: at_once.saturating_add(queue),
            next: 0,
            taken: Vec::new(),
            served: HashMap::new(),
        })))
    }

    /// Does the work when the caller's turn comes.
    ///
    /// The place moves into the work: blocking work cannot be stopped, so a caller that goes away must not make room for
    /// another piece while the first still runs.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] when the caller gets no place, or loses it to a group or network that has fewer;
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

    /// A place, and the signal that its turn has come.
    fn enter(&self, caller: &HashingCaller) -> Option<(Place, oneshot::Receiver<()>)> {
        let path = path(caller);
        let mut state = self.state();
        let displaced = state.room_for(&path)?;
        // The sender goes with the entry, which tells the caller that waits.
        state.taken.retain(|taken| !displaced.contains(&taken.id));
        let id = state.tick();
        let (start, turn) = oneshot::channel();
        for party in parties(&path) {
            // Behind all parties that wait already.
            state.served.entry(party).or_insert(id);
        }
        state.taken.push(Taken {
            id,
            path,
            start: Some(start),
        });
        state.start_next();
        let queue = self.clone();
        drop(state);
        Some((Place { queue, id }, turn))
    }

    /// State is changed by code that does not panic, so that a panic elsewhere cannot have left half of a change behind.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the places that were given and the turns that came.
    #[cfg(test)]
    pub(crate) fn ticks(&self) -> u64 {
        self.state().next
    }

    /// How many pieces could start now.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        let state = self.state();
        state.at_once - state.running()
    }
}

/// What a caller belongs to: a class, a group, or a network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Share {
    Class(CallerClass),
    Group(CallerGroup),
    Network(Network),
}

/// What a caller belongs to: its class, its group, then its networks, the widest first.
type Path = Vec<Share>;

fn path(caller: &HashingCaller) -> Path {
    let networks = caller.networks.iter().rev().copied().map(Share::Network);
    [Share::Class(caller.class), Share::Group(caller.group)]
        .into_iter()
        .chain(networks)
        .collect()
}

/// Those who take turns: the class, the group among those of its class, and the widest network among those of its group.
fn parties(path: &[Share]) -> [Party; 3] {
    std::array::from_fn(|level| Party {
        level,
        of: std::array::from_fn(|above| path.get(above).copied().filter(|_| above <= level)),
    })
}

/// Who takes turns with others of the same level: a class (0), a group of it (1), or what of that group comes from one
/// network, or from none that is known (2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Party {
    level: usize,
    of: [Option<Share>; 3],
}

#[derive(Debug)]
struct State {
    at_once: usize,
    /// How many places there are.
    size: usize,
    /// Counts places and turns.
    next: u64,
    /// The places that are taken, the longest first.
    taken: Vec<Taken>,
    /// When each party that waits had its last turn, or began to wait.
    served: HashMap<Party, u64>,
}

/// A place that is taken.
#[derive(Debug)]
struct Taken {
    id: u64,
    path: Path,
    /// Starts the work; `None` once it runs.
    start: Option<oneshot::Sender<()>>,
}

impl State {
    fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn running(&self) -> usize {
        self.taken.iter().filter(|taken| taken.start.is_none()).count()
    }

    /// Returns the places that a newcomer displaces, none where there is room; `None` when it gets no place.
    fn room_for(&self, newcomer: &[Share]) -> Option<Vec<u64>> {
        let mut displaced = Vec::new();
        // The narrowest network first: what is displaced there makes room in all that it is in.
        let shares = newcomer.iter().rev().copied().map(Some).chain([None]);
        for share in shares {
            let within: Vec<_> = self
                .taken
                .iter()
                .filter(|taken| share.is_none_or(|share| taken.path.contains(&share)))
                .filter(|taken| !displaced.contains(&taken.id))
                .collect();
            if within.len() >= self.most(share) {
                displaced.push(displaced_for(newcomer, within)?);
            }
        }
        Some(displaced)
    }

    /// How many places a share may take; of the whole queue, all of them. Operators are alone in their queue, so as a group
    /// they may have all of it.
    fn most(&self, share: Option<Share>) -> usize {
        let part = match share {
            None | Some(Share::Class(_) | Share::Group(CallerGroup::Operator)) => return self.size,
            Some(Share::Network(network)) if network.bits() == Network::WIDEST_V6 => 2,
            Some(Share::Group(_) | Share::Network(_)) => 4,
        };
        // Who runs cannot be displaced: with all of a share running a newcomer would have nobody's place to take.
        (self.size / part).max(self.at_once + 1).min(self.size)
    }

    fn start_next(&mut self) {
        while self.running() < self.at_once
            && let Some(next) = self.next_turn()
        {
            let now = self.tick();
            for party in parties(&self.taken[next].path) {
                self.served.insert(party, now);
            }
            if let Some(start) = self.taken[next].start.take() {
                // A caller that has just gone away drops its place, which starts the next.
                let _ = start.send(());
            }
        }
        let waiting = self.taken.iter().filter(|taken| taken.start.is_some());
        let waiting: HashSet<Party> = waiting.flat_map(|taken| parties(&taken.path)).collect();
        self.served.retain(|party, _| waiting.contains(party));
    }

    /// The first place of the network that waits for its turn the longest, in the group that does.
    fn next_turn(&self) -> Option<usize> {
        let waiting = self.taken.iter().enumerate();
        let waiting = waiting.filter(|(_, taken)| taken.start.is_some());
        let turn = |(_, taken): &(usize, &Taken)| {
            parties(&taken.path).map(|party| self.served.get(&party).copied().unwrap_or(0))
        };
        waiting.min_by_key(turn).map(|(index, _)| index)
    }
}

/// Returns the place that a newcomer takes over, of those of a share: the last one of the party with the most places, when
/// the newcomer's own party then still has no more than that one. Parties are classes, within a class its groups, and
/// within a group its networks, the widest first. When no group has more, parties within a class are its networks, of
/// the groups that hold more than the newcomer's.
fn displaced_for(newcomer: &[Share], within: Vec<&Taken>) -> Option<u64> {
    let groups = tally(&within, Order::GroupFirst, GROUP);
    let held = |path: &[Share]| {
        groups
            .get(&Order::GroupFirst.at(path, GROUP))
            .map_or(0, |held| held.places)
    };
    let of_own = held(newcomer);
    let of_larger_groups = within.iter().copied().filter(|taken| held(&taken.path) > of_own);
    let of_larger_groups = of_larger_groups.collect();
    displaced_in(Order::GroupFirst, newcomer, within)
        .or_else(|| displaced_in(Order::NetworkFirst, newcomer, of_larger_groups))
}

fn displaced_in(order: Order, newcomer: &[Share], mut within: Vec<&Taken>) -> Option<u64> {
    for level in 0..=newcomer.len() {
        let own = order.at(newcomer, level);
        let mut held = tally(&within, order, level);
        let of_own = held.remove(&own).map_or(0, |held| held.places);
        let most = with_most(held);
        if let Some((other, _)) = most.filter(|(_, held)| held.places > of_own + 1) {
            within.retain(|taken| order.at(&taken.path, level) == other);
            return last_of_most(order, within, level + 1);
        }
        within.retain(|taken| order.at(&taken.path, level) == own);
    }
    None
}

/// Returns the last place that waits, of the party with the most places on this level and each below.
fn last_of_most(order: Order, mut within: Vec<&Taken>, from: usize) -> Option<u64> {
    let deepest = within.iter().map(|taken| taken.path.len()).max().unwrap_or(0);
    for level in from..deepest {
        let (most, _) = with_most(tally(&within, order, level))?;
        within.retain(|taken| order.at(&taken.path, level) == most);
    }
    let waiting = within.iter().rev().find(|taken| taken.start.is_some());
    waiting.map(|taken| taken.id)
}

/// The place of the group in a path.
const GROUP: usize = 1;

/// What comes first within a class.
#[derive(Debug, Clone, Copy)]
enum Order {
    /// Groups, and within a group its networks.
    GroupFirst,
    /// Networks, the widest first, and within a network its groups.
    NetworkFirst,
}

impl Order {
    /// What of a path stands on a level, from 0 for the class.
    fn at(self, path: &[Share], level: usize) -> Option<Share> {
        let index = match self {
            Self::NetworkFirst if level >= GROUP && level + 1 < path.len() => level + 1,
            Self::NetworkFirst if level >= GROUP && level + 1 == path.len() => GROUP,
            Self::GroupFirst | Self::NetworkFirst => level,
        };
        path.get(index).copied()
    }
}

/// What a party has of the places.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    places: usize,
    /// The last of them that waits.
    last: Option<u64>,
}

/// What each party on a level has of these places.
fn tally(within: &[&Taken], order: Order, level: usize) -> HashMap<Option<Share>, Held> {
    let mut all: HashMap<_, Held> = HashMap::new();
    for taken in within {
        let held = all.entry(order.at(&taken.path, level)).or_default();
        held.places += 1;
        held.last = taken.start.as_ref().map(|_| taken.id).or(held.last);
    }
    all
}

/// The party with the most places, of those that have one that waits; of equals the one that came last.
fn with_most(all: HashMap<Option<Share>, Held>) -> Option<(Option<Share>, Held)> {
    let waiting = all.into_iter().filter(|(_, held)| held.last.is_some());
    waiting.max_by_key(|(_, held)| (held.places, held.last))
}

/// A place in the queue, running or waiting, until it is dropped.
#[derive(Debug)]
struct Place {
    queue: FairQueue,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.taken.retain(|taken| taken.id != self.id);
        state.start_next();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn tenant(number: u128) -> HashingCaller {
        let group = CallerGroup::Tenant(Uuid::from_u128(number).into());
        HashingCaller::new(CallerClass::Guest, group, None)
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
        assert!(queue.state().taken.is_empty() && queue.state().served.is_empty());
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
        flood.retain(|one| !is_displaced(one));
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
        assert_eq!((queue.free(), queue.state().taken.len()), (1, 0));
        assert!(queue.state().served.is_empty());
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

    fn operator(address: &str) -> HashingCaller {
        let address = Some(address.parse().unwrap());
        HashingCaller::new(CallerClass::Guest, CallerGroup::Operator, address)
    }

    fn known(caller: HashingCaller) -> HashingCaller {
        let class = CallerClass::Known;
        HashingCaller { class, ..caller }
    }

    /// Guests from as many networks as there are places try the login of one tenant, or of operators.
    #[test]
    fn known_caller_displaces_a_guest_of_any_network() {
        for newcomer in [from(1, "203.0.113.9"), operator("203.0.113.9")] {
            let queue = FairQueue::new(2, 62);
            let guest = |number: u8| {
                let networks = Network::of(Some(format!("198.51.{number}.1").parse().unwrap()));
                HashingCaller {
                    networks,
                    ..newcomer.clone()
                }
            };
            let mut flood: Vec<_> = (0..100)
                .filter_map(|number| queue.enter(&guest(number)))
                .collect();
            assert!(queue.enter(&newcomer).is_none());
            let entered = queue.enter(&known(newcomer.clone()));
            assert_eq!(flood.iter().filter(|one| is_displaced(one)).count(), 1);
            // Of what waits the known caller is next but one: the guests' turn was already due.
            let (_place, mut turn) = entered.unwrap();
            flood.remove(0);
            flood.remove(0);
            assert!(turn.try_recv().is_ok());
        }
    }

    /// Four networks name sixteen tenants each, so that each tenant holds one place.
    #[test]
    fn newcomer_displaces_the_network_with_most_where_groups_hold_alike() {
        let queue = FairQueue::new(2, 62);
        let flood: Vec<_> = (0..64)
            .filter_map(|number| queue.enter(&from(number, &format!("198.51.{}.1", number % 4))))
            .collect();
        assert_eq!(flood.len(), 64);
        let newcomer = queue.enter(&from(100, "203.0.113.9"));
        assert!(newcomer.is_some());
        assert_eq!(flood.iter().filter(|one| is_displaced(one)).count(), 1);
        assert!(queue.enter(&from(101, "198.51.0.1")).is_none());
    }

    fn is_displaced((place, _): &(Place, oneshot::Receiver<()>)) -> bool {
        !place.queue.state().taken.iter().any(|taken| taken.id == place.id)
    }

    /// An anonymous network floods the login of a tenant: the tenant's own users get a place of that network's.
    #[test]
    fn newcomer_network_displaces_the_one_with_most_of_a_tenant() {
        for (flooding, newcomer) in [
            ("198.51.100.7", "203.0.113.9"),
            ("2001:db8::1", "203.0.113.9"),
            ("2001:db8::1", "2001:db8:0:100::1"),
            ("2001:db8::1", "2001:db8:0:1::1"),
        ] {
            let queue = FairQueue::new(2, 62);
            let flood = enters(&queue, &from(1, flooding), 100);
            assert_eq!(flood.len(), 16, "{flooding}");
            let others = enters(&queue, &from(1, newcomer), 100);
            assert_eq!(others.len(), 8, "{newcomer}: half of what there is");
            assert_eq!(flood.iter().filter(|one| is_displaced(one)).count(), 8);
            assert!(queue.enter(&from(1, flooding)).is_none());
        }
    }

    #[test]
    fn newcomer_network_displaces_in_the_lane_of_operators() {
        let queue = FairQueue::new(1, 15);
        let flood: Vec<_> = (0..4)
            .flat_map(|number| enters(&queue, &operator(&format!("198.51.{number}.1")), 100))
            .collect();
        assert_eq!(flood.len(), 16);
        let newcomer = queue.enter(&operator("203.0.113.9"));
        assert!(newcomer.is_some());
        assert_eq!(flood.iter().filter(|one| is_displaced(one)).count(), 1);
    }

    #[test]
    fn networks_of_a_tenant_take_turns() {
        let queue = FairQueue::new(1, 63);
        let mut flood = enters(&queue, &from(1, "198.51.100.7"), 100);
        let (_newcomer, mut turn) = queue.enter(&from(1, "203.0.113.9")).unwrap();
        flood.remove(0);
        assert!(turn.try_recv().is_err(), "the flood was there first");
        flood.remove(0);
        assert!(turn.try_recv().is_ok());
    }

    /// Work that runs cannot be displaced, so a share has a place more than run at once.
    #[test]
    fn newcomer_network_gets_a_place_while_others_run() {
        let queue = FairQueue::new(8, 16);
        let flood = enters(&queue, &from(1, "198.51.100.7"), 100);
        assert_eq!((flood.len(), queue.free()), (9, 0));
        assert!(queue.enter(&from(1, "203.0.113.9")).is_some());
    }

    proptest! {
        /// However places are taken and given back, no share has more than its part, a network without a place gets one
        /// as long as another network of the same tenant has two of which one waits, and a known caller as long as guests
        /// hold two places more than known callers do, of the tenant and of all.
        #[test]
        fn newcomer_networks_get_places_in_any_state(
            at_once in 1_usize..4,
            size in 1_usize..40,
            steps in prop::collection::vec((0_u8..4, 0_u8..5, 0_u8..3, 0_usize..64), 0..200),
        ) {
            let queue = FairQueue::new(at_once, size);
            let mut held = Vec::new();
            for (tenant, network, leaves, which) in steps {
                let address = match network {
                    0..3 => format!("198.51.{network}.1"),
                    _ => format!("2001:db8:0:{network}::1"),
                };
                let guest = from(tenant.into(), &address);
                held.extend(queue.enter(&if leaves == 1 { known(guest) } else { guest }));
                if leaves == 0 && !held.is_empty() {
                    held.swap_remove(which % held.len());
                }
                held.retain(|one| !is_displaced(one));
                let state = queue.state();
                prop_assert_eq!(state.taken.len(), held.len());
                prop_assert!(state.taken.len() <= state.size);
                prop_assert_eq!(state.running(), state.at_once.min(state.taken.len()));
                for share in state.taken.iter().flat_map(|taken| &taken.path) {
                    let of_share = state.taken.iter().filter(|taken| taken.path.contains(share)).count();
                    prop_assert!(of_share <= state.most(Some(*share)));
                }
            }
            for tenant in 0..4 {
                let newcomer = from(tenant, "203.0.113.9");
                let group = Some(Share::Group(newcomer.group));
                let displaceable = {
                    let state = queue.state();
                    let of_group = state.taken.iter().filter(|taken| taken.path.get(GROUP).copied() == group);
                    let of_group: Vec<_> = of_group.filter(|taken| taken.path[0] == path(&newcomer)[0]).collect();
                    let crowded = |held: &Held| held.places > 1 && held.last.is_some();
                    tally(&of_group, Order::GroupFirst, 2).values().any(crowded)
                };
                prop_assert!(queue.enter(&newcomer).is_some() || !displaceable);
                let guests_prevail = |group: Option<Share>| {
                    let state = queue.state();
                    let within = state.taken.iter().filter(|taken| group.is_none_or(|group| taken.path.contains(&group)));
                    let mut held = tally(&within.collect::<Vec<_>>(), Order::GroupFirst, 0);
                    let mut of = |class| held.remove(&Some(Share::Class(class))).unwrap_or_default();
                    let (known, guests) = (of(CallerClass::Known), of(CallerClass::Guest));
                    guests.places > known.places + 1 && guests.last.is_some()
                };
                let displaceable = guests_prevail(group) && guests_prevail(None);
                prop_assert!(queue.enter(&known(from(tenant, "203.0.114.9"))).is_some() || !displaceable);
            }
        }
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
