use std::sync::Arc;

use tenantry_domain::PasswordError;
use tokio::sync::Semaphore;

/// Runs blocking work off the async threads: so many pieces at once, so many waiting, and no more.
///
/// Hashing takes a core and megabytes of memory for tens of milliseconds. Without a bound, a burst of
/// logins would take every core and all memory; without a bound on the waiting, every login would time out
/// instead of a few.
#[derive(Debug)]
pub(crate) struct Bounded {
    /// One for each piece that runs or waits.
    places: Arc<Semaphore>,
    /// One for each piece that runs.
    turns: Arc<Semaphore>,
}

impl Bounded {
    /// At least one runs at once, whatever `at_once` says.
    pub(crate) fn new(at_once: usize, queue: usize) -> Self {
        let at_once = at_once.clamp(1, Semaphore::MAX_PERMITS);
        let places = at_once.saturating_add(queue).min(Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(places)),
            turns: Arc::new(Semaphore::new(at_once)),
        }
    }

    /// Does the work when its turn comes.
    ///
    /// Both permits move into the work: blocking work cannot be stopped, so a caller who goes away must not
    /// make room for another piece while the first still runs.
    ///
    /// # Errors
    /// [`PasswordError::Busy`] when the queue is full; [`PasswordError::Failed`] when the work panicked.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PasswordError> {
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| PasswordError::Busy)?;
        let turn = Arc::clone(&self.turns)
            .acquire_owned()
            .await
            .map_err(|_| PasswordError::Busy)?;
        let task = tokio::task::spawn_blocking(move || {
            let _held = (place, turn);
            work()
        });
        task.await
            .map_err(|error| PasswordError::Failed(error.to_string()))
    }

    /// How many pieces could start now.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.turns.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// A piece of work that runs until the sender is dropped, and the word that it has begun.
    fn held() -> (
        mpsc::Sender<()>,
        tokio::sync::oneshot::Receiver<()>,
        impl FnOnce() + Send + 'static,
    ) {
        let (release, released) = mpsc::channel::<()>();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let work = move || {
            begin.send(()).ok();
            released.recv().ok();
        };
        (release, begun, work)
    }

    #[tokio::test]
    async fn never_more_at_once_than_allowed() {
        let bounded = Arc::new(Bounded::new(2, 100));
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tasks: Vec<_> = (0..20)
            .map(|_| {
                let (bounded, running, most) =
                    (Arc::clone(&bounded), Arc::clone(&running), Arc::clone(&most));
                tokio::spawn(async move {
                    let work = move || {
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(2));
                        running.fetch_sub(1, Ordering::SeqCst);
                    };
                    bounded.run(work).await
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), 2);
        assert_eq!(bounded.free(), 2);
    }

    #[tokio::test]
    async fn is_busy_when_the_queue_is_full_and_recovers() {
        let bounded = Arc::new(Bounded::new(1, 1));
        let (release, begun, work) = held();
        let first = tokio::spawn({
            let bounded = Arc::clone(&bounded);
            async move { bounded.run(work).await }
        });
        begun.await.unwrap();
        let mut waiting = Box::pin(bounded.run(|| 2));
        assert!(futures_poll(&mut waiting).await.is_none());
        assert!(matches!(bounded.run(|| 3).await, Err(PasswordError::Busy)));

        drop(release);
        first.await.unwrap().unwrap();
        assert_eq!(waiting.await.unwrap(), 2);
        assert_eq!(bounded.run(|| 4).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn one_who_leaves_the_queue_frees_the_place() {
        let bounded = Arc::new(Bounded::new(1, 1));
        let (release, begun, work) = held();
        let running = tokio::spawn({
            let bounded = Arc::clone(&bounded);
            async move { bounded.run(work).await }
        });
        begun.await.unwrap();
        let mut waiting = Box::pin(bounded.run(|| ()));
        assert!(futures_poll(&mut waiting).await.is_none());
        drop(waiting);
        let mut next = Box::pin(bounded.run(|| ()));
        assert!(futures_poll(&mut next).await.is_none());
        drop(release);
        running.await.unwrap().unwrap();
        next.await.unwrap();
    }

    #[tokio::test]
    async fn a_caller_who_goes_away_frees_nothing_before_the_work_ends() {
        let bounded = Arc::new(Bounded::new(1, 0));
        let (release, begun, work) = held();
        let caller = tokio::spawn({
            let bounded = Arc::clone(&bounded);
            async move { bounded.run(work).await }
        });
        begun.await.unwrap();
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        assert_eq!(bounded.free(), 0);
        assert!(matches!(bounded.run(|| ()).await, Err(PasswordError::Busy)));

        drop(release);
        while bounded.free() == 0 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_panic_is_a_failure_and_frees_the_turn() {
        let bounded = Bounded::new(1, 0);
        let outcome = bounded.run(|| panic!("on purpose")).await;
        assert!(matches!(outcome, Err::<(), _>(PasswordError::Failed(_))));
        bounded.run(|| ()).await.unwrap();
    }

    /// Polls once; `None` when it is not ready.
    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
                std::task::Poll::Ready(value) => Some(value),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
