//! Login, registration, sessions, and the users of a tenant.

pub(crate) mod auth;
pub(crate) mod user;
