//! What happens to a request before its handler and to its answer afterwards: credentials, limits, quotas, deadlines, headers.

pub(crate) mod authenticate;
pub(crate) mod deadline;
pub(crate) mod limits;
mod probing;
pub(crate) mod quota;
pub(crate) mod request;
pub(crate) mod security;
