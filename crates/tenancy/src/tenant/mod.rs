//! A tenant's life and who is let in: sign-up, changes, suspension, deletion, erasure, and the choice of the tenant of a request.

pub mod access;
pub mod archive_files;
pub mod audit_export;
pub mod audit_upkeep;
pub mod custom_domain;
pub mod data_key;
pub mod domain_ask;
mod domain_checks;
mod host_lookup;
pub mod lifecycle;
pub mod provision;
pub mod purge;
pub mod row_work;
pub mod support_access;
pub mod support_request;
mod tenant;
pub mod upkeep;

pub use tenant::*;
