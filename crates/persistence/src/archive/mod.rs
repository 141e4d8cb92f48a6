//! Archives of tenants: their rows, and exports.

mod export;
pub(crate) mod rows;
