//! Streaming of audit entries to a receiver outside, such as a SIEM.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::audit::chain::{Block, Head};
use crate::audit::entry::AuditEntry;
use crate::audit::stream_record::StreamRecord;
use crate::kernel::name::named_enum;
use crate::kernel::{AuditEventId, StoreError, SystemScope, TenantId, Time};

named_enum! {
    /// Where the stream of a log begins when streaming is switched on.
    pub enum StreamFrom {
        /// With the next entry.
        Now = "now",
        /// With the oldest entry that is kept.
        Beginning = "beginning",
    }
}

/// How much of a log is sent at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchLimits {
    /// The most records.
    pub records: usize,
    /// The most bytes of their JSON; a single record may have more.
    pub bytes: usize,
}

/// Up to where the log of a tenant was acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamPosition {
    /// The number of the last entry; 0 before the first.
    pub sequence: i64,
    /// The number of the entry that the last head signs.
    pub head_sequence: i64,
}

/// What of a tenant's log comes behind a position.
#[derive(Debug, Clone, Default)]
pub struct UnsentLog {
    /// The next blocks, in order. The first may begin before the position.
    pub blocks: Vec<Block>,
    /// The entries of the blocks that are there.
    pub entries: HashMap<AuditEventId, AuditEntry>,
    /// The next heads, in order.
    pub heads: Vec<Head>,
}

/// Records that are sent together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamBatch {
    /// The records, in order.
    pub records: Vec<StreamRecord>,
    /// Up to where the log is acknowledged with them.
    pub position: StreamPosition,
}

impl StreamBatch {
    /// The next records of a tenant's log. A head follows the entry that it signs. An entry without a row, and numbers that no block has,
    /// become a gap, so that a receiver sees what is missing.
    pub fn of(tenant: TenantId, position: StreamPosition, log: &UnsentLog, limits: BatchLimits) -> Self {
        let mut batch = Self {
            records: Vec::new(),
            position,
        };
        let mut bytes = 0;
        let mut add = |batch: &mut Self, record: StreamRecord| {
            let is_first = batch.records.is_empty();
            bytes += record.line.len() + 1;
            let fits = is_first || (bytes <= limits.bytes && batch.records.len() < limits.records);
            if fits {
                batch.records.push(record);
            }
            fits
        };
        for block in &log.blocks {
            for (sequence, link) in block
                .numbered()
                .filter(|(sequence, _)| *sequence > position.sequence)
            {
                let next = batch.position.sequence + 1;
                if sequence > next {
                    if !add(
                        &mut batch,
                        StreamRecord::gap(tenant, next, sequence - 1, block.min_at),
                    ) {
                        return batch;
                    }
                    batch.position.sequence = sequence - 1;
                }
                let record = match log.entries.get(&link.id) {
                    Some(entry) => StreamRecord::event(tenant, (sequence, &link.hash), entry),
                    None => StreamRecord::gap(tenant, sequence, sequence, block.min_at),
                };
                if !add(&mut batch, record) {
                    return batch;
                }
                batch.position.sequence = sequence;
            }
        }
        for head in &log.heads {
            let is_next = head.sequence > batch.position.head_sequence;
            if head.sequence > batch.position.sequence || !is_next {
                continue;
            }
            if !add(&mut batch, StreamRecord::head(tenant, head)) {
                return batch;
            }
            batch.position.head_sequence = head.sequence;
        }
        batch
    }

    /// The entries that a batch may have of these blocks: no more are read.
    pub fn wanted(position: StreamPosition, blocks: &[Block], records: usize) -> Vec<AuditEventId> {
        let links = blocks.iter().flat_map(Block::numbered);
        let links = links.filter(|(sequence, _)| *sequence > position.sequence);
        links.take(records).map(|(_, link)| link.id).collect()
    }
}

/// Up to where the log of the scope's tenant was sent, and who is sending it.
#[async_trait]
pub trait AuditStreams: Send {
    /// Notes that something waits to be sent since a time. The first note begins the stream: behind `begin`, or, without it, with the oldest
    /// entry that is kept.
    async fn note(&mut self, begin: Option<StreamPosition>, since: Time, now: Time)
    -> Result<(), StoreError>;

    /// Looks anew whether something waits to be sent.
    async fn refresh(&mut self) -> Result<(), StoreError>;

    /// Takes the log for so many seconds, by the clock of the database. `None` when nothing waits or another sender has it.
    async fn lease(&mut self, lease: Uuid, seconds: i64) -> Result<Option<StreamPosition>, StoreError>;

    /// The blocks behind a number, of which the first may begin before it; at most `limit`.
    async fn unsent_blocks(&mut self, sequence: i64, limit: u32) -> Result<Vec<Block>, StoreError>;

    /// The heads that sign entries behind a number, in order; at most `limit`.
    async fn unsent_heads(&mut self, head_sequence: i64, limit: u32) -> Result<Vec<Head>, StoreError>;

    /// Stores up to where the receiver has acknowledged the log, and gives the lease back. Returns whether the lease still stood; else
    /// nothing changes.
    async fn acknowledge(&mut self, lease: Uuid, position: StreamPosition) -> Result<bool, StoreError>;

    /// Gives the lease back, if it still stands.
    async fn release(&mut self, lease: Uuid) -> Result<(), StoreError>;

    /// The number of the last entry that was acknowledged; `None` before the stream has begun.
    async fn sent(&mut self) -> Result<Option<i64>, StoreError>;
}

/// What waits to be sent, of all tenants that are not deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnsentTenants {
    /// How many tenants.
    pub tenants: u64,
    /// The time of the oldest entry.
    pub since: Option<Time>,
}

/// The tenants with something to send: which, and since when, and nothing of their logs.
#[async_trait]
pub trait UnsentAudit: Send + Sync {
    /// Up to `limit` tenants that no sender has, by id, from after `after` on.
    async fn waiting(
        &self,
        because: SystemScope,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<TenantId>, StoreError>;

    /// How much waits.
    async fn count(&self, because: SystemScope) -> Result<UnsentTenants, StoreError>;
}

/// Why records were not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The receiver cannot be reached, or asks the sender to wait. The records are not the reason: nothing can be sent for a while.
    #[error("the receiver of audit entries is unavailable: {problem}")]
    Unavailable {
        /// What happened, without secrets.
        problem: String,
        /// How long the receiver asks to wait.
        retry_after: Option<Duration>,
    },
    /// The records were sent and not acknowledged. Either the receiver fails, or something in front of it rejects these records: only
    /// an attempt with another log shows which.
    #[error("the receiver has not acknowledged audit entries: {0}")]
    Unacknowledged(String),
    /// The receiver refuses these records; it may take others.
    #[error("the receiver refuses audit entries: {0}")]
    Refused(String),
    /// These are too many records at once.
    #[error("the receiver refuses so many audit entries at once")]
    TooLarge,
}

/// Sends records to the receiver.
#[async_trait]
pub trait AuditSink: Send + Sync {
    /// Sends records in order, and returns when the receiver has acknowledged all of them.
    ///
    /// # Errors
    /// [`SinkError`]; then the receiver may have taken none, some or all.
    async fn send(&self, records: &[StreamRecord]) -> Result<(), SinkError>;
}

/// Where audit entries are streamed to, and how.
#[derive(Clone)]
pub struct AuditReceiver {
    /// What sends them.
    pub sink: Arc<dyn AuditSink>,
    /// Where the stream of a log begins.
    pub from: StreamFrom,
    /// How much is sent at once.
    pub limits: BatchLimits,
    /// How long the receiver may take for a batch.
    pub timeout: Duration,
}

impl std::fmt::Debug for AuditReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditReceiver")
            .field("from", &self.from)
            .field("limits", &self.limits)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::audit::chain::{Cursor, HeadKind, Link};
    use crate::audit::risk::{Outcome, Risk};

    const LIMITS: BatchLimits = BatchLimits {
        records: 500,
        bytes: 1_000_000,
    };

    fn at(second: i64) -> Time {
        Time::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn tenant() -> TenantId {
        Uuid::from_u128(1).into()
    }

    /// A log of entries with these numbers, in blocks, of which each has a row.
    fn log(blocks: &[std::ops::RangeInclusive<i64>]) -> UnsentLog {
        let mut log = UnsentLog::default();
        for numbers in blocks {
            let link = |sequence: i64| Link {
                id: Uuid::from_u128(sequence.unsigned_abs().into()).into(),
                salt: [0; 16],
                hash: [7; 32],
            };
            log.blocks.push(Block {
                id: Uuid::from_u128(9).into(),
                created_at: at(0),
                first_sequence: *numbers.start(),
                links: numbers.clone().map(link).collect(),
                min_at: at(0),
                max_at: at(1),
                cursor: Cursor::default(),
            });
            log.entries
                .extend(numbers.clone().map(|number| (link(number).id, entry(number))));
        }
        log
    }

    fn entry(number: i64) -> AuditEntry {
        AuditEntry {
            id: Uuid::from_u128(number.unsigned_abs().into()).into(),
            at: at(number),
            category: "change".into(),
            action: "project.created".into(),
            entity: "project".into(),
            entity_id: None,
            actor_kind: "user".into(),
            actor_id: None,
            request_id: "r".into(),
            address: None,
            user_agent: None,
            outcome: Outcome::Success,
            risk: Risk::Low,
            before: None,
            after: Some(json!({"name": "line\nbreak"})),
        }
    }

    fn head(sequence: i64) -> Head {
        Head {
            id: Uuid::from_u128(5).into(),
            created_at: at(50),
            kind: HeadKind::Head,
            sequence,
            hash: [7; 32],
            kid: "k".into(),
            public_key: Vec::new(),
            signature: vec![1, 2],
        }
    }

    /// The ids without the tenant and the hash, which is the same for all.
    fn ids(batch: &StreamBatch) -> Vec<String> {
        let (prefix, hash) = (format!("{}:", tenant()), format!(":{}", "07".repeat(8)));
        let short = |record: &StreamRecord| {
            let id = record.id.strip_prefix(&prefix).unwrap();
            assert_eq!(id.ends_with(&hash), !id.starts_with("gap"), "{id}");
            id.trim_end_matches(&hash).to_owned()
        };
        batch.records.iter().map(short).collect()
    }

    fn position(sequence: i64, head_sequence: i64) -> StreamPosition {
        StreamPosition {
            sequence,
            head_sequence,
        }
    }

    #[test]
    fn batches_of_any_size_are_the_whole_log_once_in_order() {
        let mut log = log(&[1..=5, 6..=6, 7..=20]);
        log.heads = vec![head(6), head(20), head(30)];
        for records in 1..=30 {
            let limits = BatchLimits { records, ..LIMITS };
            let (mut found, mut reached) = (Vec::new(), StreamPosition::default());
            loop {
                let batch = StreamBatch::of(tenant(), reached, &log, limits);
                if batch.records.is_empty() {
                    assert_eq!(batch.position, reached);
                    break;
                }
                assert!(batch.records.len() <= records);
                found.extend(ids(&batch));
                reached = batch.position;
            }
            let entries: Vec<_> = found.iter().filter(|id| !id.starts_with("head")).collect();
            let expected: Vec<_> = (1..=20).map(|number: i64| number.to_string()).collect();
            assert_eq!(entries, expected.iter().collect::<Vec<_>>());
            let place = |id: &str| found.iter().position(|one| one == id).unwrap();
            assert!(place("head:6") > place("6") && place("head:20") > place("20"));
            assert_eq!((reached, found.len()), (position(20, 20), 22));
        }
    }

    #[test]
    fn bytes_bound_a_batch_of_more_than_one_record() {
        let log = log(&[1..=9]);
        let one = StreamBatch::of(
            tenant(),
            StreamPosition::default(),
            &log,
            BatchLimits { bytes: 1, ..LIMITS },
        );
        assert_eq!(ids(&one), ["1"]);
        let bytes = one.records[0].line.len() * 3 + 10;
        let some = StreamBatch::of(tenant(), position(1, 0), &log, BatchLimits { bytes, ..LIMITS });
        assert_eq!(ids(&some), ["2", "3", "4"]);
        assert_eq!(some.position, position(4, 0));
    }

    #[test]
    fn missing_entries_are_gaps() {
        let mut log = log(&[11..=12, 15..=16]);
        log.entries.remove(&Uuid::from_u128(15).into());
        let batch = StreamBatch::of(tenant(), position(4, 0), &log, LIMITS);
        assert_eq!(
            ids(&batch),
            ["gap:5-10", "11", "12", "gap:13-14", "gap:15-15", "16"]
        );
        let first: Value = serde_json::from_str(&batch.records[0].line).unwrap();
        assert_eq!(
            (&first["first_sequence"], &first["last_sequence"]),
            (&json!(5), &json!(10))
        );
        assert_eq!(batch.position, position(16, 0));
    }

    #[test]
    fn record_is_one_line_that_says_what_it_is() {
        let batch = StreamBatch::of(tenant(), StreamPosition::default(), &log(&[1..=1]), LIMITS);
        let record = &batch.records[0];
        assert!(!record.line.contains('\n'));
        let line: Value = serde_json::from_str(&record.line).unwrap();
        assert_eq!(line["id"], json!(format!("{}:1:0707070707070707", tenant())));
        assert_eq!(
            (&line["kind"], &line["sequence"]),
            (&json!("audit_event"), &json!(1))
        );
        assert_eq!(line["after"]["name"], "line\nbreak");
        assert_eq!(line["at"], json!(at(1)));
    }
}
