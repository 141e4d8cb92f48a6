//! Users, sessions, invitations, custom roles, API keys, second factors, passkeys, signing keys, answered challenges, links and notices to accounts, and the index of addresses over all tenants.

pub(crate) mod account_link;
pub(crate) mod account_notice;
pub(crate) mod api_key;
pub(crate) mod challenge;
pub(crate) mod custom_role;
pub(crate) mod invitation;
pub(crate) mod lockout;
pub(crate) mod mfa;
pub(crate) mod passkey;
pub(crate) mod person;
pub(crate) mod session;
pub(crate) mod signing_key;
pub(crate) mod user;
pub(crate) mod workspace;
