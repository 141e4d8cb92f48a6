use std::io;
use std::sync::{Arc, Mutex, Once, PoisonError};

use tracing::Subscriber;
use tracing::subscriber::{DefaultGuard, NoSubscriber, set_default, set_global_default};

/// Keeps what is logged.
#[derive(Clone, Default)]
pub struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Keeps what this thread logs, until the guard is dropped.
    pub fn listen(&self) -> DefaultGuard {
        let lines = self.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || lines.clone());
        listen(subscriber.finish())
    }

    /// How often a text was logged.
    pub fn count(&self, text: &str) -> usize {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).matches(text).count()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets a subscriber hear what this thread logs, until the guard is dropped.
///
/// While a process has a single subscriber, `tracing` asks the thread that comes to a log statement first whether
/// anybody wants it, and remembers the answer for all threads: another test's thread, which has no subscriber, would
/// silence the statement for this one. A second subscriber that wants nothing keeps it from that shortcut.
pub fn listen(subscriber: impl Subscriber + Send + Sync) -> DefaultGuard {
    static SECOND: Once = Once::new();
    SECOND.call_once(|| {
        // An error means that there is a second one already.
        let _ = set_global_default(NoSubscriber::new());
    });
    set_default(subscriber)
}
