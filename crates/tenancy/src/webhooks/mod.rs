//! Outgoing webhooks: the endpoints of a tenant, and what deliveries mean for them.

pub mod delivery_state;
pub mod endpoint;
