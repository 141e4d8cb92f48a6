//! Events: what receivers outside learn about changes in a tenant. The catalogue of their types, the events themselves, and the feed
//! in which they are numbered.
//!
//! May use: `kernel`.

mod catalogue;
mod cloud_event;
mod consumer;
mod event;
mod event_type;
mod event_types;
mod export;
mod field;
mod log;

pub use cloud_event::CloudEvent;
pub use consumer::{ConsumerName, EventConsumer, EventConsumers, ParseConsumerNameError};
pub use event::{Event, EventFeed, FeedEnds, NewEvent, TenantEvent, UnpublishedEvents};
pub use event_type::EventType;
pub use event_types::{EventTypeError, EventTypes, MOST_TYPES};
pub use export::{EventExport, EventExports, EventSink, EventSinkError, ExportedEvent};
pub use field::Field;
pub use log::{ExportBacklog, LogEnds, LogPosition, PublishedEvents};
