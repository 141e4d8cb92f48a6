use std::collections::hash_map::RandomState;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;

use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

/// A bounded memory. Keys may be names that anybody can ask for, so they are hashed with the standard library's keyed hash.
pub(crate) type BoundedCache<K, V> = Cache<K, V, UnitWeighter, RandomState, DefaultLifecycle<K, V>>;

/// One of at most about so many entries. It takes memory for what is in it only.
///
/// To look something up marks it and moves nothing: over a hundred thousand tenants a list in the order of use would cost a request
/// some microseconds, for memory that is in no processor's cache.
pub(crate) fn bounded_cache<K: Eq + Hash, V: Clone>(entries: u64) -> BoundedCache<K, V> {
    let expected = usize::try_from(entries).unwrap_or(usize::MAX);
    let (hasher, lifecycle) = (RandomState::new(), DefaultLifecycle::default());
    Cache::with(expected, entries, UnitWeighter, hasher, lifecycle)
}

/// A bounded memory in which loads for the same key wait for one another.
pub(crate) struct SingleFlight<K, V> {
    entries: BoundedCache<K, Arc<V>>,
}

impl<K: Eq + Hash + Clone, V> SingleFlight<K, V> {
    pub(crate) fn new(entries: u64) -> Self {
        Self {
            entries: bounded_cache(entries),
        }
    }

    /// What is remembered, good or not.
    pub(crate) fn get(&self, key: &K) -> Option<Arc<V>> {
        self.entries.get(key)
    }

    /// What is remembered if it holds, or else what `load` brings, or what somebody else's load brings that is under way: that
    /// one may have begun too early to hold.
    ///
    /// Whoever is dropped while it loads leaves that to one of those who wait.
    pub(crate) async fn get_or_load(
        &self,
        key: &K,
        holds: impl Fn(&V) -> bool,
        load: impl Future<Output = V>,
    ) -> Arc<V> {
        self.entries.remove_if(key, |value| !holds(value));
        match self.entries.get_value_or_guard_async(key).await {
            Ok(value) => value,
            Err(guard) => {
                let value = Arc::new(load.await);
                // It is not there any more when it had to make room meanwhile, which concerns those who come later only.
                let _ = guard.insert(Arc::clone(&value));
                value
            }
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.entries.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn who_is_dropped_while_it_loads_leaves_that_to_one_of_those_who_wait() {
        let (memory, loads, gate) = (SingleFlight::new(10), AtomicU64::new(0), Semaphore::new(0));
        let load = || async {
            let number = loads.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            number
        };
        let mut first = Box::pin(memory.get_or_load(&1, |_| true, load()));
        assert!(futures_util::poll!(&mut first).is_pending());
        let waiting = join_all((0..3).map(|_| memory.get_or_load(&1, |_| true, load())));
        let mut waiting = Box::pin(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        assert_eq!(loads.load(Ordering::SeqCst), 1);
        drop(first);
        gate.add_permits(1);
        assert_eq!(waiting.await, [1, 1, 1].map(Arc::new));
        assert_eq!(loads.load(Ordering::SeqCst), 2);
        assert_eq!(memory.get(&1), Some(Arc::new(1)));
    }

    #[tokio::test]
    async fn what_does_not_hold_is_loaded_again_once() {
        let memory = SingleFlight::new(10);
        assert_eq!(*memory.get_or_load(&1, |_| true, async { 1 }).await, 1);
        assert_eq!(*memory.get_or_load(&1, |value| *value > 1, async { 2 }).await, 2);
        assert_eq!(*memory.get_or_load(&1, |value| *value > 1, async { 3 }).await, 2);
        assert_eq!(memory.len(), 1);
    }
}
