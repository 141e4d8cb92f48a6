use std::sync::Once;

use tracing::Subscriber;
use tracing::subscriber::{DefaultGuard, NoSubscriber, set_default, set_global_default};

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
