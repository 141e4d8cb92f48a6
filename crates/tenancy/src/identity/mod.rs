//! Accounts of people: login, registration, sessions, second factors, links of mails, invitations, API keys, and the users of a tenant.

pub mod account;
pub mod account_email;
pub mod account_link;
pub mod account_mail;
pub(crate) mod address;
pub mod api_key;
pub mod api_key_expiry;
pub(crate) mod api_key_use;
pub mod auth;
pub(crate) mod email_domain;
pub mod invitation;
pub mod mfa;
pub mod session;
pub mod user;
