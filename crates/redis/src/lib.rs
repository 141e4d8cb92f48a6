//! What several instances share through Redis: rate limits ([`RedisLimiter`]) and announcements ([`Announcements`]
//! of changes, over a [`Channel`]).
//!
//! Nothing here is lost with Redis, and nothing waits for it. While it is away the limiter gives each instance its
//! part of every limit, and a channel says that it is not live; when it is back, so are they. One connection is
//! shared by everybody who asks: [`Redis`] keeps it.
#![deny(missing_docs)]

mod announcements;
mod channel;
mod limiter;
mod redis;

pub use announcements::Announcements;
pub use channel::Channel;
pub use limiter::{RedisLimiter, Tally};
pub use redis::{Away, Redis, RedisUrlError};
