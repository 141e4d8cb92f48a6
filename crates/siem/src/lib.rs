//! Sends audit entries to a receiver outside, such as a SIEM: the adapters of [`tenantry_domain::audit::AuditSink`] to HTTP with NDJSON and to
//! syslog (RFC 5424) over TLS (RFC 5425).
#![deny(missing_docs)]

mod http;
mod message;
mod problem;
mod syslog;

pub use http::{HttpReceiver, HttpReceiverConfig};
pub use message::frame;
pub use syslog::{SyslogConfig, SyslogConfigError, SyslogReceiver};
