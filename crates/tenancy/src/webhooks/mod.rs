//! Outgoing webhooks: the endpoints of a tenant, deliveries and what they mean for endpoints, the dispatcher that makes them, and tokens for
//! the pages on which endpoints are managed.

mod acting;
pub mod delivery;
pub mod delivery_state;
pub(crate) mod disabled_notice;
pub mod dispatcher;
pub mod endpoint;
pub(crate) mod lane;
pub(crate) mod places;
pub mod portal;
pub mod removal;
pub(crate) mod turns;
