//! The audit log: who did what, and when; its hash chain, what is known when it is read, and its stream to
//! a receiver outside.
//!
//! May use: `kernel`, `events`.

mod audit;
mod canonical;
mod chain;
mod entry;
mod personal;
mod risk;
mod stream;
mod stream_record;
mod walk;

pub use audit::{AuditEvent, AuditLog, Category, changed_fields, cut_details, cut_state};
pub use canonical::canonical;
pub use chain::{AuditChain, Block, Cursor, Head, HeadKind, Link, Tail, Unchained};
pub use entry::{AuditEntry, AuditFilter, AuditRecord, Chained};
pub use personal::{Salt, erased, erased_text};
pub use risk::{Outcome, Risk};
pub use stream::{
    AuditReceiver, AuditSink, AuditStreams, BatchLimits, SinkError, StreamBatch, StreamFrom, StreamPosition,
    UnsentAudit, UnsentLog, UnsentTenants,
};
pub use stream_record::{RecordKind, StreamRecord};
pub use walk::{Walk, Wrong, WrongReason};
