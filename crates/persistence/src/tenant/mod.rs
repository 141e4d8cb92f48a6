//! Tenants: their rows, the directory that admission reads, and the registry across tenants.

pub(crate) mod custom_domain;
pub(crate) mod data_key;
pub(crate) mod directory;
pub(crate) mod registry;
pub(crate) mod rows;
pub(crate) mod support_access;
pub(crate) mod tenant;
