//! Notifications of users, and what users want to be notified of.

pub(crate) mod notification;
pub(crate) mod position;
pub(crate) mod preferences;
