//! Notifications of users: the list, what users choose, and the links that end mails.

pub(crate) mod notification;
pub(crate) mod preferences;
pub(crate) mod unsubscribe;
