//! Events of the tenant: the catalogue of their types, and the feed.

pub(crate) mod cloud_event;
pub(crate) mod event;
pub(crate) mod event_type;
