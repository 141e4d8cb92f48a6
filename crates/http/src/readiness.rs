use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use crate::{Component, component::Components};

/// How long a check may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(2);

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
    pub(crate) components: Components,
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

    /// Asks everything there is to ask.
    pub(crate) async fn verdict(&self) -> Verdict {
        if self.draining.load(Ordering::Relaxed) {
            return Verdict::Draining;
        }
        let mut checks = Vec::with_capacity(self.checks.len());
        for (name, check) in &self.checks {
            checks.push((*name, holds(name, check.as_ref()).await));
        }
        Verdict::Checked {
            checks,
            notices: self
                .notices
                .iter()
                .map(|(name, state)| (*name, state()))
                .collect(),
        }
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
