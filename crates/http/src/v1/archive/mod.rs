//! Exports of a tenant and of one person.

pub(crate) mod export;
pub(crate) mod person;
