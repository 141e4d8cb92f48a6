//! Looks up many hosts with one statement, for questions that anybody can cause.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tenantry_domain::kernel::StoreError;
use tenantry_domain::tenant::{Capability, DomainName, Slug, TenantSelector};
use tokio::sync::oneshot::{self, Receiver, Sender};

use crate::Tenancy;

/// How many hosts one statement looks up.
const AT_ONCE: usize = 2_000;

/// Where hosts are looked up.
#[async_trait]
pub(crate) trait HostStore: Send + Sync + 'static {
    /// Returns those of the hosts that lead to a tenant whose requests are served, with one statement.
    async fn served(
        &self,
        labels: &[Slug],
        domains: &[DomainName],
    ) -> Result<HashSet<TenantSelector>, StoreError>;
}

#[async_trait]
impl HostStore for Tenancy {
    async fn served(
        &self,
        labels: &[Slug],
        domains: &[DomainName],
    ) -> Result<HashSet<TenantSelector>, StoreError> {
        let found = self.ports.gate.find_by_hosts(labels, domains).await?;
        let served = found
            .into_iter()
            .filter(|(_, tenant)| tenant.status.allows(Capability::Login));
        Ok(served.map(|(host, _)| host).collect())
    }
}

/// Hosts that wait to be looked up in the store.
///
/// One statement at a time looks up all that wait, so a flood of made-up names costs the store one connection, and a host that is
/// served waits for two statements, not for a place that made-up names have taken. The statement is in a task of its own: a question
/// that is dropped, because of its timeout or its connection, neither abandons a statement nor makes room for a second one. How many
/// hosts wait is bounded by the connections of the listener, on each of which one question is open.
#[derive(Clone, Default)]
pub(crate) struct HostLookups {
    queue: Arc<Mutex<Queue>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    /// Whether a task looks up what waits.
    has_task: bool,
    /// The length at which hosts that nobody waits for any more are removed.
    prune_at: usize,
}

/// A host, and where the answer goes.
struct Waiting {
    host: TenantSelector,
    answer: Sender<Result<bool, StoreError>>,
}

impl HostLookups {
    /// Returns whether a host leads to a tenant whose requests are served.
    pub(crate) async fn is_served<S: HostStore>(
        &self,
        store: &Arc<S>,
        host: &TenantSelector,
    ) -> Result<bool, StoreError> {
        let (answer, task) = self.enqueue(host);
        if let Some(task) = task {
            tokio::spawn(task.run(Arc::clone(store)));
        }
        let ended = || StoreError::Unavailable("the lookup of a host was interrupted".into());
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    /// The answer to come, and the task that looks it up, unless there is one.
    fn enqueue(&self, host: &TenantSelector) -> (Receiver<Result<bool, StoreError>>, Option<Lookup>) {
        let (sender, receiver) = oneshot::channel();
        let mut queue = self.queue();
        if queue.waiting.len() >= queue.prune_at.max(AT_ONCE) {
            queue.waiting.retain(|one| !one.answer.is_closed());
            queue.prune_at = 2 * queue.waiting.len();
        }
        queue.waiting.push_back(Waiting {
            host: host.clone(),
            answer: sender,
        });
        let is_first = !std::mem::replace(&mut queue.has_task, true);
        let task = is_first.then(|| Lookup {
            lookups: self.clone(),
            has_ended: false,
        });
        (receiver, task)
    }

    /// The hosts that have waited longest, without those that nobody waits for any more; `None` ends the task, in the same step as no
    /// question can join the queue.
    fn next(&self) -> Option<Vec<Waiting>> {
        let mut queue = self.queue();
        queue.waiting.retain(|one| !one.answer.is_closed());
        let count = queue.waiting.len().min(AT_ONCE);
        queue.has_task = count > 0;
        (count > 0).then(|| queue.waiting.drain(..count).collect())
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The only task that looks hosts up.
struct Lookup {
    lookups: HostLookups,
    /// Whether it ended because nothing waited.
    has_ended: bool,
}

impl Lookup {
    /// Looks up what waits until nothing does.
    async fn run<S: HostStore>(mut self, store: Arc<S>) {
        while let Some(batch) = self.lookups.next() {
            look_up(store.as_ref(), batch).await;
        }
        self.has_ended = true;
    }
}

impl Drop for Lookup {
    /// After a panic, or the end of the runtime, the next question starts another task. What waits gets an error: no task would answer it.
    fn drop(&mut self) {
        if !self.has_ended {
            let mut queue = self.lookups.queue();
            queue.has_task = false;
            queue.waiting.clear();
        }
    }
}

async fn look_up<S: HostStore>(store: &S, batch: Vec<Waiting>) {
    let (mut labels, mut domains) = (HashSet::new(), HashSet::new());
    for one in &batch {
        match &one.host {
            TenantSelector::Subdomain(label) => {
                labels.insert(label.clone());
            }
            TenantSelector::Domain(domain) => {
                domains.insert(domain.clone());
            }
            TenantSelector::Id(_) | TenantSelector::Slug(_) => {}
        }
    }
    let (labels, domains): (Vec<_>, Vec<_>) = (labels.into_iter().collect(), domains.into_iter().collect());
    let served = store.served(&labels, &domains).await;
    for Waiting { host, answer } in batch {
        let is_served = served
            .as_ref()
            .map(|served| served.contains(&host))
            .map_err(Clone::clone);
        // Nobody waits for it any more when this fails.
        let _ = answer.send(is_served);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;
    use tokio::sync::Semaphore;

    use super::*;

    /// A store that answers when it gets a permit, and counts its statements.
    struct Slow {
        begun: Semaphore,
        may_answer: Semaphore,
        at_once: AtomicUsize,
        most: AtomicUsize,
        hosts: AtomicUsize,
        panics: bool,
    }

    impl Slow {
        fn new(panics: bool) -> Arc<Self> {
            Arc::new(Self {
                begun: Semaphore::new(0),
                may_answer: Semaphore::new(0),
                at_once: AtomicUsize::new(0),
                most: AtomicUsize::new(0),
                hosts: AtomicUsize::new(0),
                panics,
            })
        }

        /// Waits for a statement to begin.
        async fn begun(&self) {
            self.begun.acquire().await.unwrap().forget();
        }
    }

    #[async_trait]
    impl HostStore for Slow {
        async fn served(
            &self,
            labels: &[Slug],
            _: &[DomainName],
        ) -> Result<HashSet<TenantSelector>, StoreError> {
            let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(at_once, Ordering::SeqCst);
            self.hosts.fetch_add(labels.len(), Ordering::SeqCst);
            self.begun.add_permits(1);
            self.may_answer.acquire().await.unwrap().forget();
            assert!(!self.panics, "a fault of the store");
            // A statement that is abandoned before goes on in the database, so it stays in the count.
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            Ok(labels.iter().cloned().map(TenantSelector::Subdomain).collect())
        }
    }

    fn host(n: usize) -> TenantSelector {
        TenantSelector::Subdomain(Slug::parse(&format!("tenant-{n}")).unwrap())
    }

    /// The store hangs, and the questions end, because of their timeout or with their connections.
    #[tokio::test]
    async fn dropped_questions_begin_no_second_statement() {
        let (store, lookups) = (Slow::new(false), HostLookups::default());
        for n in 0..100 {
            let host = host(n);
            let mut question = Box::pin(lookups.is_served(&store, &host));
            assert_eq!(question.as_mut().now_or_never(), None);
            if n == 0 {
                store.begun().await;
            }
            // Whatever the question has started runs until it waits.
            tokio::task::yield_now().await;
            drop(question);
        }
        assert_eq!(store.at_once.load(Ordering::SeqCst), 1);
        let last = host(100);
        let waiting = lookups.is_served(&store, &last);
        store.may_answer.add_permits(2);
        assert_eq!(waiting.await, Ok(true));
        assert_eq!(store.most.load(Ordering::SeqCst), 1);
        // The hosts of the questions that were dropped are not looked up.
        assert_eq!(store.hosts.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn dropped_questions_leave_a_bounded_queue() {
        let (store, lookups) = (Slow::new(false), HostLookups::default());
        for n in 0..10 * AT_ONCE {
            let host = host(n);
            assert_eq!(lookups.is_served(&store, &host).now_or_never(), None);
        }
        assert!(lookups.queue().waiting.len() <= AT_ONCE);
    }

    #[tokio::test]
    async fn lookup_that_panics_leaves_the_next_one_its_turn() {
        let (broken, store, lookups) = (Slow::new(true), Slow::new(false), HostLookups::default());
        broken.may_answer.add_permits(1);
        store.may_answer.add_permits(1);
        let host = host(1);
        let interrupted = lookups.is_served(&broken, &host).await;
        assert!(
            matches!(interrupted, Err(StoreError::Unavailable(_))),
            "{interrupted:?}"
        );
        assert_eq!(lookups.is_served(&store, &host).await, Ok(true));
    }
}
