use std::collections::HashMap;

use crate::audit::chain::{Block, Cursor, Head, HeadKind};
use crate::audit::entry::AuditEntry;
use crate::kernel::name::named_enum;
use crate::kernel::{AuditEventId, TenantId};

named_enum! {
    /// What is wrong with a chain.
    pub enum WrongReason {
        /// Numbers are missing: a part of the chain was deleted or another chain follows.
        Gap = "gap",
        /// An entry of the chain is no longer in the log.
        MissingEntry = "missing_entry",
        /// An entry, its place or what is before it was changed.
        HashMismatch = "hash_mismatch",
        /// The chain differs from what was signed: it was computed anew.
        SignedHashMismatch = "signed_hash_mismatch",
        /// The end that was signed is missing.
        CutOff = "cut_off",
        /// A signature is not that of a key of this server.
        WrongSignature = "wrong_signature",
        /// Entries were added without being chained.
        UnchainedEntry = "unchained_entry",
    }
}

impl WrongReason {
    /// A sentence about it.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Gap => "entries before this number are missing from the chain",
            Self::MissingEntry => "the entry is no longer in the log",
            Self::HashMismatch => "the entry, its place or an entry before it was changed",
            Self::SignedHashMismatch => {
                "the chain differs from a signed head: this entry or one before it was changed"
            }
            Self::CutOff => "a signed head is of this entry, which is missing with all up to it from the end",
            Self::WrongSignature => "the signature of the head or checkpoint of this entry is not valid",
            Self::UnchainedEntry => "the log has entries of before this one that were never chained",
        }
    }
}

/// The first entry with which something is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Its number.
    pub sequence: i64,
    /// Its id, where it is known.
    pub id: Option<AuditEventId>,
    /// What is wrong.
    pub reason: WrongReason,
}

/// Follows a chain from its beginning, or from a checkpoint, to its end.
#[derive(Debug, Clone)]
pub struct Walk {
    tenant: TenantId,
    /// The number of the last entry that was verified.
    pub sequence: i64,
    /// The chained hash of that entry; zeros before the first one.
    pub hash: [u8; 32],
    /// How many entries were verified.
    pub verified: i64,
    /// Behind which entry the chain ends; entries behind it are not chained yet.
    pub cursor: Cursor,
    signed: HashMap<i64, [u8; 32]>,
}

impl Walk {
    /// A walk along a tenant's chain. The signatures of the heads were verified.
    pub fn new(tenant: TenantId, heads: &[Head]) -> Self {
        let checkpoint = Head::newest(heads, HeadKind::Checkpoint);
        let (sequence, hash) = checkpoint
            .map(|head| (head.sequence, head.hash))
            .unwrap_or_default();
        let signed = heads.iter().map(|head| (head.sequence, head.hash));
        Self {
            tenant,
            sequence,
            hash,
            verified: 0,
            cursor: Cursor::default(),
            signed: signed.collect(),
        }
    }

    /// Verifies the next block.
    ///
    /// # Errors
    /// The first entry with which something is wrong.
    pub fn step(&mut self, block: &Block, entries: &HashMap<AuditEventId, AuditEntry>) -> Result<(), Wrong> {
        for (sequence, link) in block.numbered() {
            let wrong = |reason| {
                Err(Wrong {
                    sequence,
                    id: Some(link.id),
                    reason,
                })
            };
            if sequence != self.sequence + 1 {
                return wrong(WrongReason::Gap);
            }
            let Some(entry) = entries.get(&link.id) else {
                return wrong(WrongReason::MissingEntry);
            };
            let hash = entry.hash(self.tenant, sequence, &self.hash, &link.salt);
            if hash != link.hash {
                return wrong(WrongReason::HashMismatch);
            }
            if self.signed.get(&sequence).is_some_and(|signed| *signed != hash) {
                return wrong(WrongReason::SignedHashMismatch);
            }
            (self.sequence, self.hash) = (sequence, hash);
            self.verified += 1;
        }
        self.cursor = block.cursor;
        Ok(())
    }

    /// Verifies that the chain has not been cut at its end; to be called behind the last block.
    ///
    /// # Errors
    /// The last entry that was signed.
    pub fn end(&self) -> Result<(), Wrong> {
        let signed = self.signed.keys().copied().max().unwrap_or_default();
        if signed <= self.sequence {
            return Ok(());
        }
        Err(Wrong {
            sequence: signed,
            id: None,
            reason: WrongReason::CutOff,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::audit::chain::Tail;
    use crate::audit::risk::{Outcome, Risk};
    use crate::kernel::Time;

    fn tenant(number: u128) -> TenantId {
        Uuid::from_u128(number).into()
    }

    fn entry(number: u128) -> AuditEntry {
        AuditEntry {
            id: Uuid::from_u128(1_000 + number).into(),
            at: Time::from_timestamp(1_800_000_000 + i64::try_from(number).unwrap(), 0).unwrap(),
            category: "change".into(),
            action: "task.updated".into(),
            entity: "task".into(),
            entity_id: Some(Uuid::from_u128(number)),
            actor_kind: "user".into(),
            actor_id: None,
            request_id: "r".into(),
            address: Some("192.0.2.1".into()),
            user_agent: None,
            outcome: Outcome::Success,
            risk: Risk::Low,
            before: Some(json!({"title": "a"})),
            after: Some(json!({"title": number.to_string(), "email": "ada@example.com"})),
        }
    }

    type Log = HashMap<AuditEventId, AuditEntry>;

    fn chain(of: TenantId, count: u128, at_once: usize) -> (Vec<Block>, Log) {
        let entries: Vec<_> = (0..count)
            .map(|number| (entry(number), Cursor::default()))
            .collect();
        let (mut blocks, mut tail) = (Vec::new(), Tail::default());
        for (number, some) in entries.chunks(at_once).enumerate() {
            let id = Uuid::from_u128(number as u128).into();
            let block = Block::of(of, &tail, some, (id, some[0].0.at), || [number as u8; 16]).unwrap();
            tail = block.tail();
            blocks.push(block);
        }
        let log = entries.into_iter().map(|(entry, _)| (entry.id, entry)).collect();
        (blocks, log)
    }

    fn verify(of: TenantId, blocks: &[Block], log: &Log, heads: &[Head]) -> Result<Walk, Wrong> {
        let mut walk = Walk::new(of, heads);
        for block in blocks {
            walk.step(block, log)?;
        }
        walk.end()?;
        Ok(walk)
    }

    fn head(kind: HeadKind, sequence: i64, hash: [u8; 32]) -> Head {
        Head {
            id: Uuid::nil().into(),
            created_at: Time::default(),
            kind,
            sequence,
            hash,
            kid: String::new(),
            public_key: Vec::new(),
            signature: Vec::new(),
        }
    }

    fn head_of(blocks: &[Block]) -> Head {
        let tail = blocks.last().unwrap().tail();
        head(HeadKind::Head, tail.sequence, tail.hash)
    }

    #[test]
    fn untouched_chain_verifies_and_erasure_keeps_it() {
        let (blocks, mut log) = chain(tenant(1), 23, 5);
        let heads = [head_of(&blocks[..3]), head_of(&blocks)];
        let walk = verify(tenant(1), &blocks, &log, &heads).unwrap();
        assert_eq!((walk.sequence, walk.verified), (23, 23));
        let mut erased = blocks.clone();
        for link in erased.iter_mut().flat_map(|block| &mut block.links) {
            let entry = log.get_mut(&link.id).unwrap();
            *entry = entry.erased(&link.salt);
            assert!(!format!("{entry:?}").contains("ada@"));
            link.salt = [0; 16];
        }
        verify(tenant(1), &erased, &log, &heads).unwrap();
    }

    #[test]
    fn chain_of_another_tenant_is_not_this_one() {
        let (blocks, log) = chain(tenant(1), 3, 3);
        let wrong = verify(tenant(2), &blocks, &log, &[]).unwrap_err();
        assert_eq!((wrong.sequence, wrong.reason), (1, WrongReason::HashMismatch));
    }

    #[test]
    fn checkpoint_is_where_a_shortened_chain_begins() {
        let (blocks, log) = chain(tenant(1), 20, 5);
        let tail = blocks[1].tail();
        let checkpoint = head(HeadKind::Checkpoint, tail.sequence, tail.hash);
        let walk = verify(tenant(1), &blocks[2..], &log, &[checkpoint]).unwrap();
        assert_eq!((walk.sequence, walk.verified), (20, 10));
        let wrong = verify(tenant(1), &blocks[2..], &log, &[]).unwrap_err();
        assert_eq!((wrong.sequence, wrong.reason), (11, WrongReason::Gap));
        // An end that retention deleted as well is no cut.
        let walk = verify(tenant(1), &[], &log, &[head(HeadKind::Checkpoint, 10, tail.hash)]).unwrap();
        assert_eq!(walk.sequence, 10);
    }

    #[test]
    fn chain_computed_anew_differs_from_its_signed_head() {
        let (blocks, mut log) = chain(tenant(1), 10, 5);
        let signed = head_of(&blocks);
        log.values_mut()
            .for_each(|entry| entry.action = "task.deleted".into());
        let mut tail = Tail::default();
        let anew: Vec<_> = blocks
            .iter()
            .map(|block| {
                let entries = block
                    .links
                    .iter()
                    .map(|link| (log[&link.id].clone(), Cursor::default()));
                let entries: Vec<_> = entries.collect();
                let block = Block::of(tenant(1), &tail, &entries, (block.id, block.created_at), || {
                    [0; 16]
                });
                tail = block.as_ref().unwrap().tail();
                block.unwrap()
            })
            .collect();
        verify(tenant(1), &anew, &log, &[]).unwrap();
        let wrong = verify(tenant(1), &anew, &log, &[signed]).unwrap_err();
        assert_eq!(
            (wrong.sequence, wrong.reason),
            (10, WrongReason::SignedHashMismatch)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever is done to one entry, the first wrong number is that of this entry, or of the one behind it where it is gone.
        #[test]
        fn each_tampering_is_named_with_its_entry(at in 0_usize..23, what in 0..5, at_once in 1_usize..9) {
            let (mut blocks, mut log) = chain(tenant(1), 23, at_once);
            let signed = head_of(&blocks);
            let (in_block, place) = (at / at_once, at % at_once);
            let id = blocks[in_block].links[place].id;
            let sequence = i64::try_from(at).unwrap() + 1;
            let expected = match what {
                0 => {
                    log.get_mut(&id).unwrap().after = Some(json!({"title": "forged"}));
                    (sequence, WrongReason::HashMismatch)
                }
                1 => {
                    log.remove(&id);
                    (sequence, WrongReason::MissingEntry)
                }
                2 => {
                    blocks[in_block].links[place].hash[7] ^= 1;
                    (sequence, WrongReason::HashMismatch)
                }
                3 => {
                    // The end is cut off, from this block on.
                    blocks.truncate(in_block);
                    (23, WrongReason::CutOff)
                }
                _ => {
                    let removed = blocks.remove(in_block);
                    match blocks.get(in_block) {
                        Some(next) => (next.first_sequence, WrongReason::Gap),
                        None => (removed.last_sequence(), WrongReason::CutOff),
                    }
                }
            };
            let wrong = verify(tenant(1), &blocks, &log, &[signed]).unwrap_err();
            prop_assert_eq!((wrong.sequence, wrong.reason), expected);
        }
    }
}
