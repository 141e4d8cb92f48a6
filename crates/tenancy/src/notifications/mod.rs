//! Notifications of users: what events notify them of, their list, what they choose, and the mails and digests.

pub mod digest;
pub mod fan_out;
pub mod inbox;
mod mail_terms;
pub mod next_digest;
pub mod preferences;
mod present;
pub mod send;
pub mod unsubscribe;
pub mod upkeep;
