//! Events for receivers outside: publishing them in the feed of their tenant, reading the feed, and its retention. An event is recorded
//! with the entry of the audit log, by [`Cx`](crate::Cx).

pub mod feed;
pub mod publish;
pub mod upkeep;
