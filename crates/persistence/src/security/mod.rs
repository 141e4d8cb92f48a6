//! Alerts about suspicious activity, and what the security rules have counted.

mod alert;
mod detection;
