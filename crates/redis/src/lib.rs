//! What several instances share through Redis: rate limits ([`RedisLimiter`]) and invalidations ([`Invalidations`]
//! of changes, over a [`Channel`]); and the export of events to a stream ([`RedisEventSink`]).
//!
//! Nothing here is lost with Redis, and nothing waits for it. While it is away the limiter gives each instance its
//! part of every limit, and a channel says that it is not live; when it is back, so are they. Requests
//! share one connection, which [`Redis`] keeps, and everything else takes one of a pool. A single server, the master that
//! Sentinels name, and a cluster will do ([`RedisMode`]).
#![deny(missing_docs)]

mod backend;
mod channel;
mod config;
mod event_stream;
mod invalidations;
mod limiter;
mod redis;
mod slots;

pub use channel::Channel;
pub use config::{RedisConfig, RedisMode, RedisUrlError};
pub use event_stream::RedisEventSink;
pub use invalidations::Invalidations;
pub use limiter::{RedisLimiter, Tally};
pub use redis::{Away, Redis};
