use std::sync::atomic::{AtomicI64, Ordering};

use tenantry_domain::kernel::Time;

use crate::CacheSettings;

/// For so long after a change what is loaded is remembered for the short time only, in milliseconds: the change may have
/// been announced by somebody who gave up while the commit was under way.
pub(crate) const SETTLING_MS: i64 = 5_000;

/// After all times.
const NEVER: i64 = i64::MAX;

/// How long something that was loaded may be used.
#[derive(Debug)]
pub(crate) struct Freshness {
    settings: CacheSettings,
    /// Since when changes made elsewhere are heard of, in milliseconds since 1970; [`NEVER`] when they are not.
    hears_since: AtomicI64,
}

impl Freshness {
    /// Until it is told otherwise ([`Freshness::hears`]) the short time applies.
    pub(crate) fn new(settings: CacheSettings) -> Self {
        Self {
            settings,
            hears_since: AtomicI64::new(NEVER),
        }
    }

    /// Whether changes that others make are heard of from now on.
    pub(crate) fn hears(&self, others: bool, now: Time) {
        let since = if others { now.timestamp_millis() + 1 } else { NEVER };
        self.hears_since.store(since, Ordering::SeqCst);
    }

    /// Whether something loaded then may still be used now; what was not found is remembered for the short time only.
    pub(crate) fn is_young(&self, loaded_at: Time, found: bool, quiet_for: i64, now: Time) -> bool {
        // What was loaded before changes were heard of may have changed without a word.
        let heard = loaded_at.timestamp_millis() >= self.hears_since.load(Ordering::SeqCst);
        let ttl = if found && quiet_for >= SETTLING_MS && heard {
            self.settings.ttl_ms
        } else {
            self.settings.alone_ttl_ms.min(self.settings.ttl_ms)
        };
        // A clock that was set back makes nothing younger.
        (0..ttl).contains(&(now - loaded_at).num_milliseconds())
    }
}
