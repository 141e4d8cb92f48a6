//! What every room of this crate needs: what a plan and agreements grant a tenant.
//!
//! May use: no other room.

pub mod granted;
