//! Outgoing webhooks: the endpoints of a tenant.

pub(crate) mod endpoint;
