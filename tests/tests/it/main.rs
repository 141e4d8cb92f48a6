//! The integration tests: one binary, so that there is one link and one PostgreSQL for all of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(
    clippy::too_many_lines,
    reason = "tests are tables of cases: longer with each case, and no harder to read"
)]

mod account_mail;
mod account_passwords;
mod api_keys;
mod architecture;
mod audit;
mod auth;
mod authenticator;
mod axum_notes;
mod billing;
mod billing_checkout;
mod billing_drift;
mod billing_rate;
mod billing_seats;
mod billing_stripe;
mod billing_usage;
mod branding;
mod challenges;
mod concurrency;
mod connections;
mod contract;
mod custom_roles;
mod doc_comments;
mod embedder;
mod errors;
mod exports;
mod fairness;
mod features;
mod headers;
mod idempotency;
mod invitations;
mod isolation;
mod jobs;
mod lifecycle;
mod limits;
mod lockout;
mod mail;
mod mail_limits;
mod metrics;
mod mfa;
mod month;
mod ofrep;
mod openfeature;
mod operator_mfa;
mod operators;
mod pages;
mod passkeys;
mod passwords;
mod permissions;
mod pgbouncer;
mod plans;
mod projects;
mod published;
mod quotas;
mod reading;
mod recovery;
mod redis;
mod registrations;
mod resolution;
mod resources;
mod rings;
mod rooms;
mod security_notices;
mod sessions;
mod settings;
mod signing_keys;
mod signup;
mod source_files;
mod sql;
mod step_up;
mod stripe;
mod tasks;
mod tenant;
mod timeouts;
mod transaction;
mod unbilled;
mod usage;
mod user_import;
mod users;
mod views;
mod workspaces;
