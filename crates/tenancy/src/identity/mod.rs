//! Accounts of people: login, registration, sessions, and the users of a tenant.

pub mod auth;
pub mod user;
