//! Outgoing webhooks: the tenant's endpoints, what was sent to them, and tokens for the pages on which they are managed.

pub(crate) mod delivery;
pub(crate) mod endpoint;
pub(crate) mod message;
pub(crate) mod portal;
