//! The OpenFeature Remote Evaluation Protocol and its stream of changes.

pub(crate) mod event_stream;
pub(crate) mod ofrep;
