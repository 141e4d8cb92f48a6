//! Events: what receivers outside learn about changes in a tenant. The catalogue of their types, the events themselves, and the feed
//! in which they are numbered.
//!
//! May use: `kernel`.

mod catalogue;
mod event;
mod event_type;
mod event_types;
mod field;

pub use event::{Event, EventFeed, FeedEnds, NewEvent, TenantEvent, UnpublishedEvents};
pub use event_type::EventType;
pub use event_types::{EventTypeError, EventTypes, MOST_TYPES};
pub use field::Field;
