//! Outgoing webhooks: the endpoints of a tenant, their deliveries and their lanes.

pub(crate) mod delivery;
pub(crate) mod endpoint;
pub(crate) mod lane;
