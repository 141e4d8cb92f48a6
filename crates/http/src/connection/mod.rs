//! Connections of clients, HTTP/1 and HTTP/2: bounds on their number, size and time. Knows nothing of tenants.

pub(crate) mod connection;
pub(crate) mod frames;
pub(crate) mod http2;
pub(crate) mod incoming;
pub(crate) mod listen;
pub(crate) mod networks;
