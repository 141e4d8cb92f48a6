use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::{sync::Mutex, time::Instant};

use crate::Component;
use crate::app::component::Components;

/// How long a check may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a verdict stands. All probes of that time, of whomever, get the same one, so that they cost no more than one.
const STANDS: Duration = Duration::from_secs(1);

/// Something that the service cannot work without.
#[async_trait]
pub trait HealthCheck: Send + Sync {
    /// Whether it is there.
    ///
    /// # Errors
    /// What is wrong, for the log.
    async fn check(&self) -> Result<(), String>;
}

/// Whether the service should get requests.
pub struct Readiness {
    draining: AtomicBool,
    checks: Vec<(&'static str, Arc<dyn HealthCheck>)>,
    notices: Vec<(&'static str, Notice)>,
    /// The last outcome of the checks. Whoever holds the lock checks for all who wait.
    last: Mutex<Option<Checked>>,
    stands: Duration,
    pub(crate) components: Components,
}

/// Each check, and whether it held.
struct Checked {
    at: Instant,
    checks: Vec<(&'static str, bool)>,
}

/// Tells how something stands.
type Notice = Box<dyn Fn() -> &'static str + Send + Sync>;

/// What the probes say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It should, when all checks hold.
    Checked {
        /// Each check, and whether it holds.
        checks: Vec<(&'static str, bool)>,
        /// What is told beside them.
        notices: Vec<(&'static str, &'static str)>,
    },
    /// It is about to stop.
    Draining,
}

impl Readiness {
    /// Readiness without anything to check.
    pub fn new() -> Self {
        Self {
            draining: AtomicBool::new(false),
            checks: Vec::new(),
            notices: Vec::new(),
            last: Mutex::default(),
            stands: STANDS,
            components: Components::default(),
        }
    }

    /// Adds something to check, under the name it has in the answer.
    #[must_use]
    pub fn with_check(mut self, name: &'static str, check: Arc<dyn HealthCheck>) -> Self {
        self.checks.push((name, check));
        self
    }

    /// Adds something that the service can do without: how it stands is told with every answer, without changing
    /// it. Asked with every answer, so it answers at once.
    #[must_use]
    pub fn with_state(
        mut self,
        name: &'static str,
        state: impl Fn() -> &'static str + Send + Sync + 'static,
    ) -> Self {
        self.notices.push((name, Box::new(state)));
        self
    }

    /// Adds something that operators are told of in detail; whether the service cannot do without it.
    #[must_use]
    pub fn with_component(mut self, name: &'static str, needed: bool, component: Arc<dyn Component>) -> Self {
        self.components.add(name, needed, component);
        self
    }

    /// From now on the answer is no, so that a balancer sends nothing more before the service stops.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether the service is about to stop.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// What the checks say, at most once a second, and the notices of this moment.
    pub(crate) async fn verdict(&self) -> Verdict {
        if self.draining.load(Ordering::Relaxed) {
            return Verdict::Draining;
        }
        Verdict::Checked {
            checks: self.checked().await,
            notices: self
                .notices
                .iter()
                .map(|(name, state)| (*name, state()))
                .collect(),
        }
    }
}

impl Readiness {
    async fn checked(&self) -> Vec<(&'static str, bool)> {
        let mut last = self.last.lock().await;
        if let Some(checked) = &*last
            && checked.at.elapsed() < self.stands
        {
            return checked.checks.clone();
        }
        let all = self
            .checks
            .iter()
            .map(async |(name, check)| (*name, holds(name, check.as_ref()).await));
        let checks = join_all(all).await;
        *last = Some(Checked {
            at: Instant::now(),
            checks: checks.clone(),
        });
        checks
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Readiness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Readiness")
            .field("draining", &self.draining)
            .finish_non_exhaustive()
    }
}

async fn holds(name: &str, check: &dyn HealthCheck) -> bool {
    let outcome = tokio::time::timeout(PATIENCE, check.check()).await;
    let failure = match outcome {
        Ok(Ok(())) => return true,
        Ok(Err(reason)) => reason,
        Err(_) => format!("no answer within {PATIENCE:?}"),
    };
    tracing::warn!(check = name, failure, "a readiness check failed");
    false
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Takes a while, and fails from the second time on.
    struct Counted(Arc<AtomicUsize>);

    #[async_trait]
    impl HealthCheck for Counted {
        async fn check(&self) -> Result<(), String> {
            tokio::task::yield_now().await;
            match self.0.fetch_add(1, Ordering::SeqCst) {
                0 => Ok(()),
                _ => Err("away".into()),
            }
        }
    }

    fn database(holds: bool) -> Verdict {
        Verdict::Checked {
            checks: vec![("database", holds)],
            notices: Vec::new(),
        }
    }

    #[tokio::test]
    async fn all_probes_of_a_second_share_one_check() {
        let count = Arc::new(AtomicUsize::new(0));
        let mut readiness = Readiness::new().with_check("database", Arc::new(Counted(Arc::clone(&count))));
        readiness.stands = Duration::from_secs(3_600);
        let all = join_all((0..100).map(|_| readiness.verdict())).await;
        assert!(all.iter().all(|verdict| *verdict == database(true)));
        assert_eq!(count.load(Ordering::SeqCst), 1);
        readiness.stands = Duration::ZERO;
        assert_eq!(readiness.verdict().await, database(false), "it no longer stands");
        assert_eq!(count.load(Ordering::SeqCst), 2);
        readiness.drain();
        assert_eq!(readiness.verdict().await, Verdict::Draining);
    }
}
