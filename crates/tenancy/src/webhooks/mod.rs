//! Outgoing webhooks: the endpoints of a tenant, what deliveries mean for them, and tokens for the pages on which they are managed.

mod acting;
pub mod delivery_state;
pub mod endpoint;
pub mod portal;
