//! Events of the tenant: the catalogue of their types, the feed, and the positions of its consumers.

pub(crate) mod cloud_event;
pub(crate) mod consumer;
pub(crate) mod event;
pub(crate) mod event_stream;
pub(crate) mod event_type;
pub(crate) mod event_view;
