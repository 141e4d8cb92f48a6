use std::collections::HashMap;

use async_trait::async_trait;
use chrono::Duration;
use serde_json::json;
use uuid::Uuid;

use crate::audit::canonical::canonical;
use crate::audit::entry::AuditEntry;
use crate::audit::personal::Salt;
use crate::kernel::name::named_enum;
use crate::kernel::{AuditBlockId, AuditEventId, AuditHeadId, StoreError, TenantId, Time, UserId, hex};

/// How far apart in time the entries of a block may be, so that the block of an entry is found by its time.
const LONGEST_SPAN: Duration = Duration::hours(1);

/// A chained entry, in the block that it was chained with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The entry.
    pub id: AuditEventId,
    /// The salt of its personal data.
    pub salt: Salt,
    /// The SHA-256 of the hash before it and the entry's canonical form.
    pub hash: [u8; 32],
}

impl Link {
    /// The bytes of a stored link.
    pub const LENGTH: usize = 64;

    /// The link as it is stored: id, salt, hash.
    pub fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..16].copy_from_slice(self.id.uuid().as_bytes());
        bytes[16..32].copy_from_slice(&self.salt);
        bytes[32..].copy_from_slice(&self.hash);
        bytes
    }

    /// The link of stored bytes.
    pub fn from_bytes(bytes: &[u8; Self::LENGTH]) -> Self {
        let (id, rest) = bytes.split_at(16);
        let (salt, hash) = rest.split_at(16);
        let array = |bytes: &[u8]| bytes.try_into().unwrap_or_default();
        Self {
            id: Uuid::from_bytes(array(id)).into(),
            salt: array(salt),
            hash: hash.try_into().unwrap_or_default(),
        }
    }
}

/// Up to where the log is chained: entries behind it, by transaction and id, are not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The number of the transaction that has written the last chained entry.
    pub transaction: i64,
    /// The id of that entry.
    pub event: Uuid,
}

/// The end of a chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tail {
    /// The number of the last chained entry; 0 when there is none.
    pub sequence: i64,
    /// Its hash; zeros when there is none.
    pub hash: [u8; 32],
    /// Where to go on.
    pub cursor: Cursor,
}

/// Entries that are not chained yet, in the order in which they will be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Unchained {
    /// Each with the cursor behind it.
    pub entries: Vec<(AuditEntry, Cursor)>,
    /// Whether there are more, of transactions before which others have not ended.
    pub waiting: bool,
}

/// Entries that were chained together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Identifies the block within the tenant.
    pub id: AuditBlockId,
    /// When they were chained.
    pub created_at: Time,
    /// The number of the first entry.
    pub first_sequence: i64,
    /// The entries in their order.
    pub links: Vec<Link>,
    /// The time of the oldest entry.
    pub min_at: Time,
    /// The time of the newest entry.
    pub max_at: Time,
    /// Where the next block goes on.
    pub cursor: Cursor,
}

impl Block {
    /// The most entries of a block.
    pub const MOST: usize = 500;

    /// Chains entries behind the end of a chain, in one block: as many as are close to each other in time. `None` without
    /// entries. `salt` returns random bytes.
    pub fn of(
        tenant: TenantId,
        tail: &Tail,
        entries: &[(AuditEntry, Cursor)],
        (id, created_at): (AuditBlockId, Time),
        mut salt: impl FnMut() -> Salt,
    ) -> Option<Self> {
        let (first, _) = entries.first()?;
        let mut block = Self {
            id,
            created_at,
            first_sequence: tail.sequence + 1,
            links: Vec::with_capacity(entries.len().min(Self::MOST)),
            min_at: first.at,
            max_at: first.at,
            cursor: tail.cursor,
        };
        let mut hash = tail.hash;
        for (sequence, (entry, cursor)) in (tail.sequence + 1..).zip(entries.iter().take(Self::MOST)) {
            let (min_at, max_at) = (block.min_at.min(entry.at), block.max_at.max(entry.at));
            if max_at - min_at > LONGEST_SPAN {
                break;
            }
            (block.min_at, block.max_at, block.cursor) = (min_at, max_at, *cursor);
            let salt = salt();
            hash = entry.hash(tenant, sequence, &hash, &salt);
            block.links.push(Link {
                id: entry.id,
                salt,
                hash,
            });
        }
        Some(block)
    }

    /// The longest time between the oldest and the newest entry of a block.
    pub const fn longest_span() -> Duration {
        LONGEST_SPAN
    }

    /// The number of the last entry.
    pub fn last_sequence(&self) -> i64 {
        self.first_sequence - 1 + i64::try_from(self.links.len()).unwrap_or(i64::MAX)
    }

    /// The end of a chain whose last block this is.
    pub fn tail(&self) -> Tail {
        Tail {
            sequence: self.last_sequence(),
            hash: self.links.last().map(|link| link.hash).unwrap_or_default(),
            cursor: self.cursor,
        }
    }

    /// Erases the entries for which `concerns` holds: their erased form is returned, and their salts are zeros from here on.
    pub fn erase(
        &mut self,
        entries: &HashMap<AuditEventId, AuditEntry>,
        concerns: impl Fn(&AuditEntry) -> bool,
    ) -> Vec<AuditEntry> {
        let mut erased = Vec::new();
        for link in &mut self.links {
            let found = entries.get(&link.id).filter(|entry| concerns(entry));
            let Some(entry) = found.filter(|_| link.salt != Salt::default()) else {
                continue;
            };
            erased.push(entry.erased(&link.salt));
            link.salt = Salt::default();
        }
        erased
    }

    /// The numbered links.
    pub fn numbered(&self) -> impl Iterator<Item = (i64, &Link)> {
        (self.first_sequence..).zip(&self.links)
    }
}

named_enum! {
    /// What a signed state of a chain is for.
    pub enum HeadKind {
        /// The end of the chain on a day: cutting off what is before it shows.
        Head = "head",
        /// The last entry that was deleted because of its age: the chain is verified from there on.
        Checkpoint = "checkpoint",
    }
}

/// A signed state of a tenant's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Identifies it within the tenant.
    pub id: AuditHeadId,
    /// When it was signed.
    pub created_at: Time,
    /// Whether it signs the end of a day or the beginning of what is kept.
    pub kind: HeadKind,
    /// The number of the entry.
    pub sequence: i64,
    /// The hash of the entry.
    pub hash: [u8; 32],
    /// The name of the signing key.
    pub kid: String,
    /// The public key, sealed for [`Self::place`].
    pub public_key: Vec<u8>,
    /// The Ed25519 signature of [`Self::message`].
    pub signature: Vec<u8>,
}

impl Head {
    /// The newest of some signed states that is of a kind.
    pub fn newest(heads: &[Self], kind: HeadKind) -> Option<&Self> {
        let of_kind = heads.iter().filter(|head| head.kind == kind);
        of_kind.max_by_key(|head| head.sequence)
    }

    /// The place for which the public key of that name is sealed.
    pub fn place(kid: &str) -> String {
        format!("audit key {kid}")
    }

    /// The signed text: canonical JSON.
    pub fn message(&self, tenant: TenantId) -> String {
        canonical(&json!({
            "tenant_id": tenant,
            "kind": self.kind,
            "sequence": self.sequence,
            "hash": hex(&self.hash),
            "at_micros": self.created_at.timestamp_micros(),
        }))
    }
}

/// The chain of the audit log of the scope's tenant. The runtime role only adds to it.
#[async_trait]
pub trait AuditChain: Send {
    /// The end of the chain.
    async fn tail(&mut self) -> Result<Tail, StoreError>;

    /// The entries behind a cursor whose transactions, and all before them, have ended; at most `limit`.
    async fn unchained(&mut self, cursor: Cursor, limit: u32) -> Result<Unchained, StoreError>;

    /// Adds a block. Of two that begin with one number the second fails with a unique violation.
    async fn append(&mut self, block: &Block) -> Result<(), StoreError>;

    /// The blocks whose entries have numbers above `sequence`, in order; at most `limit`.
    async fn blocks_after(&mut self, sequence: i64, limit: u32) -> Result<Vec<Block>, StoreError>;

    /// The entries of these ids that are there.
    async fn entries(
        &mut self,
        ids: &[AuditEventId],
    ) -> Result<HashMap<AuditEventId, AuditEntry>, StoreError>;

    /// Stores the erased form of entries of a block which concern a person whose erasure is under way, and zeros in place of their salts.
    /// The database changes nothing else. Entries that were erased meanwhile stay as they are. Returns how many were replaced.
    async fn erase(
        &mut self,
        person: UserId,
        block: AuditBlockId,
        entries: &[AuditEntry],
    ) -> Result<u64, StoreError>;

    /// How many entries there are up to a cursor, how many behind it, and the time of the oldest behind it.
    async fn count(&mut self, cursor: Cursor) -> Result<(i64, i64, Option<Time>), StoreError>;

    /// All signed states, the oldest first.
    async fn heads(&mut self) -> Result<Vec<Head>, StoreError>;

    /// The newest signed state of a kind.
    async fn last_head(&mut self, kind: HeadKind) -> Result<Option<Head>, StoreError>;

    /// Adds a signed state.
    async fn add_head(&mut self, head: &Head) -> Result<(), StoreError>;

    /// Deletes the entries with numbers up to `through`, for which there is a checkpoint and with which a block ends. How many
    /// those were. The database refuses it for entries of the last 29 days.
    async fn retain(&mut self, through: i64) -> Result<u64, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_survive_their_bytes() {
        let link = Link {
            id: Uuid::from_u128(77).into(),
            salt: [5; 16],
            hash: [9; 32],
        };
        assert_eq!(Link::from_bytes(&link.to_bytes()), link);
    }
}
