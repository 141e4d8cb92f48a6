//! Events: the outbox that the transactions of changes write, and the feed in which events have a number.

pub(crate) mod feed;
pub(crate) mod outbox;
