//! The integration tests: one binary, so that there is one link and one PostgreSQL for all of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod architecture;
mod auth;
mod billing;
mod billing_stripe;
mod billing_usage;
mod branding;
mod concurrency;
mod contract;
mod embedder;
mod errors;
mod fairness;
mod features;
mod headers;
mod idempotency;
mod isolation;
mod jobs;
mod limits;
mod mail;
mod metrics;
mod month;
mod ofrep;
mod openfeature;
mod operators;
mod pages;
mod pgbouncer;
mod plans;
mod projects;
mod published;
mod quotas;
mod redis;
mod resolution;
mod resources;
mod rings;
mod settings;
mod signup;
mod sql;
mod stripe;
mod tasks;
mod tenant;
mod timeouts;
mod transaction;
mod usage;
mod users;
mod views;
