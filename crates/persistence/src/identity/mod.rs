//! Users and their sessions.

pub(crate) mod session;
pub(crate) mod user;
