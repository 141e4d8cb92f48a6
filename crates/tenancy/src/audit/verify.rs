//! Verification of the audit log's hash chain.

use std::sync::Arc;

use tenantry_domain::audit::{Head, HeadKind, Walk, Wrong, WrongReason};
use tenantry_domain::kernel::{AuditEventId, Permission, SystemScope, TenantId, Time};

use crate::audit::chain;
use crate::audit::log::AuditError;
use crate::{Cx, Tenancy};

/// How many blocks are verified in one transaction: at most 1,000 entries are in memory.
const BLOCKS_AT_ONCE: u32 = 2;

/// What is known of a tenant's chain after it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// How many entries were verified.
    pub entries: i64,
    /// The number of the last one; 0 when nothing was ever chained.
    pub last_sequence: i64,
    /// Its hash; zeros when nothing was ever chained.
    pub last_hash: [u8; 32],
    /// The number of the last entry that was deleted because of its age.
    pub checkpoint: Option<i64>,
    /// The newest signed head.
    pub signed: Option<Head>,
    /// How many heads and checkpoints are signed with keys that this server cannot recognize.
    pub unverifiable: usize,
    /// How many entries are not chained yet.
    pub unchained: i64,
    /// When the oldest of these was written.
    pub oldest_unchained: Option<Time>,
    /// The first entry with which something is wrong.
    pub wrong: Option<Wrong>,
}

/// Verifies the tenant's whole chain.
///
/// # Errors
/// [`AuditError`].
pub async fn verify(cx: &Cx) -> Result<Verified, AuditError> {
    cx.require(Permission::ReadAudit)?;
    verified(cx).await
}

/// Chains what has committed of a tenant's log and verifies its whole chain; `None` of a tenant that is deleted.
///
/// # Errors
/// [`AuditError`].
pub async fn verify_of(
    app: &Arc<Tenancy>,
    because: SystemScope,
    tenant: TenantId,
) -> Result<Option<Verified>, AuditError> {
    let Some(cx) = Cx::enter(app, because, tenant).await? else {
        return Ok(None);
    };
    chain::advance(&cx).await?;
    verified(&cx).await.map(Some)
}

async fn verified(cx: &Cx) -> Result<Verified, AuditError> {
    loop {
        let heads = heads(cx).await?;
        let signatures = Signatures::of(cx, &heads);
        let mut walk = Walk::new(cx.scope().tenant(), &heads);
        let mut wrong = signatures.wrong;
        if wrong.is_none() {
            wrong = follow(cx, &mut walk).await?.err();
        }
        // Old entries were deleted meanwhile, so the chain begins elsewhere now.
        if wrong.is_some() && checkpoint(&heads) != checkpoint(&self::heads(cx).await?) {
            continue;
        }
        // What follows a wrong entry is chained, although it was not looked at.
        let stopped = wrong.is_some();
        let (before, unchained, oldest_unchained) = cx
            .read(async |work| {
                let chain = work.audit_chain();
                let end = if stopped {
                    chain.tail().await?.cursor
                } else {
                    walk.cursor
                };
                Ok::<_, AuditError>(chain.count(end).await?)
            })
            .await?;
        if wrong.is_none() && before > walk.verified {
            wrong = Some(Wrong {
                sequence: walk.sequence,
                id: None,
                reason: WrongReason::UnchainedEntry,
            });
        }
        return Ok(Verified {
            entries: walk.verified,
            last_sequence: walk.sequence,
            last_hash: walk.hash,
            checkpoint: checkpoint(&heads),
            signed: Head::newest(&heads, HeadKind::Head).cloned(),
            unverifiable: signatures.unverifiable,
            unchained,
            oldest_unchained,
            wrong,
        });
    }
}

async fn heads(cx: &Cx) -> Result<Vec<Head>, AuditError> {
    cx.read(async |work| Ok(work.audit_chain().heads().await?)).await
}

fn checkpoint(heads: &[Head]) -> Option<i64> {
    Head::newest(heads, HeadKind::Checkpoint).map(|head| head.sequence)
}

/// Verifies block after block up to the end, or to the first wrong entry.
async fn follow(cx: &Cx, walk: &mut Walk) -> Result<Result<(), Wrong>, AuditError> {
    loop {
        let after = walk.sequence;
        let (blocks, entries) = cx
            .read(async |work| {
                let chain = work.audit_chain();
                let blocks = chain.blocks_after(after, BLOCKS_AT_ONCE).await?;
                let links = blocks.iter().flat_map(|block| &block.links);
                let ids: Vec<AuditEventId> = links.map(|link| link.id).collect();
                let entries = chain.entries(&ids).await?;
                Ok::<_, AuditError>((blocks, entries))
            })
            .await?;
        if blocks.is_empty() {
            return Ok(walk.end());
        }
        for block in &blocks {
            if let Err(wrong) = walk.step(block, &entries) {
                return Ok(Err(wrong));
            }
        }
    }
}

/// What the signatures of heads and checkpoints are worth.
struct Signatures {
    /// How many are of keys that this server cannot recognize, as after a change of its own key without the former one.
    unverifiable: usize,
    /// The first one that is not valid.
    wrong: Option<Wrong>,
}

impl Signatures {
    fn of(cx: &Cx, heads: &[Head]) -> Self {
        let (ports, tenant) = (cx.ports(), cx.scope().tenant());
        let mut signatures = Self {
            unverifiable: 0,
            wrong: None,
        };
        for head in heads {
            let Some(key) = ports.seal.open(&Head::place(&head.kid), &head.public_key) else {
                signatures.unverifiable += 1;
                continue;
            };
            let message = head.message(tenant);
            if !ports.key_ring.verifies(&key, message.as_bytes(), &head.signature) {
                signatures.wrong.get_or_insert(Wrong {
                    sequence: head.sequence,
                    id: None,
                    reason: WrongReason::WrongSignature,
                });
            }
        }
        signatures
    }
}
