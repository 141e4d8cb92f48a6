//! The audit log: who did what, and when.
//!
//! May use: `kernel`.

mod audit;

pub use audit::{AuditEvent, AuditLog, Category, cut_details, cut_state};
