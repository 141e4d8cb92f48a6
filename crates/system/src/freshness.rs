use std::sync::atomic::{AtomicI64, Ordering};

use tenantry_domain::kernel::Time;

use crate::CacheConfig;

/// The time after an invalidation during which loaded values are cached for the short time only, in milliseconds: its
/// publisher may have given up while the commit was still under way.
pub(crate) const SETTLING_MS: i64 = 5_000;

/// Later than any time.
const NEVER: i64 = i64::MAX;

/// Decides how long loaded values may be used.
#[derive(Debug)]
pub(crate) struct Freshness {
    config: CacheConfig,
    /// The time since which invalidations of other processes arrive, in milliseconds since 1970; [`NEVER`] when they do not.
    live_since: AtomicI64,
}

impl Freshness {
    /// The short time applies until [`Freshness::set_live`] says otherwise.
    pub(crate) fn new(config: CacheConfig) -> Self {
        Self {
            config,
            live_since: AtomicI64::new(NEVER),
        }
    }

    /// Sets whether invalidations of other processes arrive from now on.
    pub(crate) fn set_live(&self, live: bool, now: Time) {
        let since = if live { now.timestamp_millis() + 1 } else { NEVER };
        self.live_since.store(since, Ordering::SeqCst);
    }

    /// Returns whether a value loaded then may still be used now; absence is cached for the short time only.
    pub(crate) fn is_young(&self, loaded_at: Time, found: bool, quiet_for: i64, now: Time) -> bool {
        // A value that was loaded before invalidations arrived may be stale.
        let live = loaded_at.timestamp_millis() >= self.live_since.load(Ordering::SeqCst);
        let ttl = if found && quiet_for >= SETTLING_MS && live {
            self.config.ttl_ms
        } else {
            self.config.alone_ttl_ms.min(self.config.ttl_ms)
        };
        // A clock that was set back makes nothing younger.
        (0..ttl).contains(&(now - loaded_at).num_milliseconds())
    }
}
