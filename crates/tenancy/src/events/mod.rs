//! Events for receivers outside: publishing them in the feed of their tenant, reading the feed, the positions of its consumers, the log of what
//! was published in all feeds, the export to a broker, and the retention. An event is recorded
//! with the entry of the audit log, by [`Cx`](crate::Cx).

pub(crate) mod batches;
pub mod consumer;
pub mod export;
pub mod export_state;
pub mod feed;
pub mod follow;
pub mod log;
pub mod publish;
pub mod rewind;
pub mod upkeep;
