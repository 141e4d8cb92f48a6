//! The audit log: reading it, its hash chain, its stream to a receiver outside, and refusals, of which there is an entry for each kind and target, however often it
//! happens.

pub(crate) mod about_erased;
pub mod chain;
pub mod chained;
pub mod log;
pub mod refusal;
pub mod stream;
pub mod stream_state;
pub mod verify;
