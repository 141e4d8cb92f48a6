//! Outgoing webhooks: the tenant's endpoints, and tokens for the pages on which they are managed.

pub(crate) mod endpoint;
pub(crate) mod portal;
