//! Events: the outbox that the transactions of changes write, the feed in which events have a number, the positions of consumers in it, the
//! log of what was published in all feeds, and how far the export is.

pub(crate) mod consumer;
pub(crate) mod export;
pub(crate) mod feed;
pub(crate) mod log;
pub(crate) mod outbox;
