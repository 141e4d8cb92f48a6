//! The application: its state, its routes and what is measured of it.
//!
//! `Api` holds what handlers need, `Endpoint` declares a route. May use everything of the crate.

pub(crate) mod api;
pub(crate) mod component;
pub(crate) mod config;
pub(crate) mod endpoint;
pub(crate) mod event_stream;
pub mod metrics;
pub(crate) mod observe;
pub(crate) mod places;
pub(crate) mod readiness;
pub(crate) mod system;
pub mod tls_ask;
