//! Operators of the platform: their accounts, login, lockout, passwords and second factors.
//!
//! It uses the rules of accounts of the room `identity`. What operators do to tenants is in the room of the thing that they
//! change.

pub mod operator;
pub mod operator_feed;
pub(crate) mod operator_guess;
pub mod operator_job;
pub mod operator_log;
pub mod operator_login;
pub mod operator_mfa;
pub mod operator_password;
pub mod operator_rows;
pub mod operator_stream;
