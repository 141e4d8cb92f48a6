use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tenantry_domain::kernel::{Clock, Time};
use tenantry_domain::operations::{Accepted, Mail, MailError, Mailer};

/// What became of mail so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailStats {
    /// Mails that were taken.
    pub sent: u64,
    /// Attempts that failed and may be repeated.
    pub retried: u64,
    /// Attempts whose mail the server got and did not answer. They may be repeated, too.
    pub in_doubt: u64,
    /// Mails that were refused for good.
    pub failed: u64,
    /// When one was last taken.
    pub last_success: Option<Time>,
    /// When one was last not taken, and why.
    pub last_failure: Option<(Time, String)>,
}

impl MailStats {
    /// Whether mail goes out, as far as the last attempt shows: what is refused for good says nothing about
    /// the server.
    pub fn goes_out(&self) -> bool {
        match (&self.last_success, &self.last_failure) {
            (_, None) => true,
            (Some(success), Some((failure, _))) => success > failure,
            (None, Some(_)) => false,
        }
    }
}

/// A mailer that is counted.
pub struct TalliedMailer {
    inner: Box<dyn Mailer>,
    clock: Arc<dyn Clock>,
    stats: Mutex<MailStats>,
}

impl std::fmt::Debug for TalliedMailer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TalliedMailer")
            .field("stats", &self.stats)
            .finish_non_exhaustive()
    }
}

impl TalliedMailer {
    /// Counts what becomes of this one's mail.
    pub fn new(inner: Box<dyn Mailer>, clock: Arc<dyn Clock>) -> Self {
        Self {
            inner,
            clock,
            stats: Mutex::default(),
        }
    }

    /// What became of it so far.
    pub fn stats(&self) -> MailStats {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, MailStats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Mailer for TalliedMailer {
    async fn send(&self, mail: &Mail) -> Result<Accepted, MailError> {
        let sent = self.inner.send(mail).await;
        let now = self.clock.now();
        let mut stats = self.lock();
        match &sent {
            Ok(_) => {
                stats.sent += 1;
                stats.last_success = Some(now);
            }
            Err(error) if error.may_pass() => {
                match error {
                    MailError::InDoubt(_) => stats.in_doubt += 1,
                    _ => stats.retried += 1,
                }
                stats.last_failure = Some((now, error.to_string()));
            }
            Err(_) => {
                stats.failed += 1;
                // The server answers, and takes other mail.
                stats.last_success = Some(now);
            }
        }
        drop(stats);
        sent
    }
}
