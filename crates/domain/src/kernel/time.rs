use chrono::{DateTime, Utc};

/// A point in time, UTC.
pub type Time = DateTime<Utc>;

/// Where "now" comes from.
pub trait Clock: Send + Sync {
    /// The current time, in whole microseconds: what the database can store, so that what a command returns
    /// equals what a later read returns.
    fn now(&self) -> Time;
}
