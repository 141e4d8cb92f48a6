//! Login, registration, sessions, second factors, links of mails, invitations, custom roles, API keys, the users of a tenant, and workspaces of an address.

pub(crate) mod account;
pub(crate) mod api_key;
pub(crate) mod auth;
pub(crate) mod challenge;
pub(crate) mod custom_role;
pub(crate) mod erasure;
pub(crate) mod invitation;
pub(crate) mod mfa;
pub(crate) mod passkey;
pub(crate) mod permission;
pub(crate) mod session;
pub(crate) mod user;
pub(crate) mod workspace;
