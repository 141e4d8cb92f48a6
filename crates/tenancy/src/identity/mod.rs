//! Accounts of people: login, registration, sessions, second factors, passkeys, links of mails, invitations, custom roles, API keys, signing keys, the users of a tenant, and the workspaces of an address.

pub mod account;
pub mod account_email;
pub mod account_link;
pub mod account_mail;
pub(crate) mod address;
pub mod api_key;
pub mod api_key_expiry;
pub(crate) mod api_key_use;
pub mod auth;
pub mod challenge;
pub mod custom_role;
pub(crate) mod email_domain;
pub mod invitation;
pub(crate) mod lockout;
pub mod mfa;
pub mod passkey;
pub mod reseal;
pub mod security_notice;
pub mod session;
pub mod signing_key;
pub(crate) mod totp;
pub mod user;
pub mod user_import;
pub mod workspace;
pub mod workspace_switch;
