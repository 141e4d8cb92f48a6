use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

/// When a call that is held is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Once it is let go, if it is.
    BeforeEffect,
    /// At once; the answer is what has to wait.
    AfterEffect,
}

/// A call that is kept from being answered, so that whoever made it can be killed in the middle of it. Let go with this
/// value.
#[derive(Debug)]
pub struct Hold(Arc<Gate>);

impl Hold {
    pub(crate) fn new(gate: Arc<Gate>) -> Self {
        Self(gate)
    }

    /// Whether the call has come, and is waiting.
    pub fn is_reached(&self) -> bool {
        self.0.reached.load(Ordering::SeqCst)
    }

    /// The call goes on, also when nobody waits for its answer any more: what was held before its effect is done now.
    pub fn release(self) {
        self.0.end(Fate::GoesOn);
    }

    /// The call is lost: it gets no answer, and what was held before its effect is never done.
    pub fn lose(self) {
        self.0.end(Fate::Lost);
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.end(Fate::GoesOn);
    }
}

/// What becomes of a call that was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    GoesOn,
    Lost,
}

/// What a call waits at.
#[derive(Debug)]
pub(crate) struct Gate {
    pub held: Held,
    reached: AtomicBool,
    fate: watch::Sender<Option<Fate>>,
}

impl Gate {
    pub fn new(held: Held) -> Self {
        Self {
            held,
            reached: AtomicBool::new(false),
            fate: watch::Sender::new(None),
        }
    }

    /// The first word counts.
    fn end(&self, fate: Fate) {
        self.fate.send_if_modified(|ended| {
            let first = ended.is_none();
            ended.get_or_insert(fate);
            first
        });
    }

    /// Whether nothing waits here any more.
    pub fn is_over(&self) -> bool {
        self.fate.borrow().is_some()
    }

    /// Waits until it is said what is to become of the call.
    pub async fn wait(&self) -> Fate {
        let mut fate = self.fate.subscribe();
        self.reached.store(true, Ordering::SeqCst);
        let ended = fate.wait_for(Option::is_some).await;
        ended.ok().and_then(|fate| *fate).unwrap_or(Fate::GoesOn)
    }
}
