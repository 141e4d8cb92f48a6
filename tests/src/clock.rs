use std::sync::Mutex;

use chrono::{Duration, TimeZone as _, Utc};
use tenantry_domain::kernel::{Clock, Time};

/// A clock that stands still until it is moved. Every reading is a microsecond after the one before, so that
/// things made one after another are ordered.
#[derive(Debug)]
pub struct ManualClock(Mutex<Time>);

impl Default for ManualClock {
    fn default() -> Self {
        Self(Mutex::new(Utc.with_ymd_and_hms(2026, 1, 15, 12, 0, 0).unwrap()))
    }
}

impl ManualClock {
    /// A clock that stands at a time.
    pub fn at(time: Time) -> Self {
        Self(Mutex::new(time))
    }

    /// Moves time.
    pub fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Time {
        let mut now = self.0.lock().unwrap();
        *now += Duration::microseconds(1);
        *now
    }
}
