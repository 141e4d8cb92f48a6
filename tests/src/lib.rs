//! What the integration tests stand on: a real PostgreSQL, a database of its own for each test, and a world of two
//! tenants with somebody of each role in each.

#![expect(
    clippy::unwrap_used,
    reason = "a harness that cannot go on should stop the test"
)]

mod archive;
mod clock;
mod database;
mod dev_template;
mod dns;
pub mod evidence;
mod hooks;
mod hosts;
mod http;
mod log;
pub mod outside;
mod payments;
mod permissions;
mod pgbouncer;
mod program;
mod redis;
mod server;
mod siem;
mod smtp;
mod tls;
mod usage;
mod world;

pub use clock::ManualClock;
pub use database::Database;
pub use dns::{DnsAnswer, DnsRecord, DnsServer};
pub use hooks::{Hook, HookReply, HookSink};
pub use hosts::KnownHosts;
pub use http::{Client, Reply, Request};
pub use log::{Lines, listen};
pub use payments::{Failing, MemoryPayments, SIGNATURE};
pub use permissions::permission_matrix;
pub use pgbouncer::PgBouncer;
pub use program::{DevServer, Folder, Program, request};
pub use redis::{ClusterServer, RedisServer, Sentinels, TlsRedisServer};
pub use siem::{HttpSiem, Receipt, Rejection, SyslogEnd, SyslogSiem};
pub use smtp::{Encryption, Reaction, Received, SmtpServer};
pub use tls::Authority;
pub use usage::{roll_up, take_back, use_up, used_by};
pub use world::{
    EDGE, Instance, Mailing, Options, PASSKEY_DOMAIN, PASSKEY_ORIGIN, PASSWORD, Payments, Person,
    TenantWorld, World, operator_cx, plans_with_meters, plans_without_prices,
};
