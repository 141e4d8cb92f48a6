//! The hash chain of the audit log: chaining, signed heads and retention.
//!
//! Entries are written unchained, so a write holds no lock of the chain. A second or two later the system chains those whose
//! transactions, and all before them, have ended. Two servers that chain one tenant's log at once add blocks with one first
//! number; the unique key lets one of them through.

use std::sync::Arc;

use chrono::Duration;
use futures_util::StreamExt as _;
use futures_util::stream::iter;
use serde_json::json;
use tenantry_domain::audit::{Block, Head, HeadKind, Salt, Tail};
use tenantry_domain::kernel::{
    AuditBlockId, AuditHeadId, Permission, StoreError, SystemScope, TenantId, Time, hex,
};
use tenantry_domain::store::Work;

use crate::audit::log::AuditError;
use crate::audit::stream;
use crate::{Cx, Tenancy};

/// In how many tenants at once entries are chained, so that requests find connections.
const TENANTS_AT_ONCE: usize = 2;

/// How many blocks are deleted in one transaction: at most 10,000 entries.
const DELETED_AT_ONCE: u32 = 20;

/// How long entries that were not streamed are kept beyond their retention. After that they are deleted, and the receiver gets a gap.
const HELD_FOR_THE_STREAM: Duration = Duration::days(30);

/// What was chained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Advanced {
    /// How many entries.
    pub chained: usize,
    /// Whether there are more, of transactions that wait for others to end.
    pub waiting: bool,
}

/// Chains the entries of the tenants that are due in this process. Returns how many entries that were.
pub async fn chain_due(app: &Arc<Tenancy>) -> usize {
    let now = app.ports.clock.now();
    let chained = iter(app.audit_marks().due(now)).map(async |tenant| match chain_one(app, tenant).await {
        Ok(Some(advanced)) => {
            app.audit_marks().looked(tenant, now, advanced.waiting);
            advanced.chained
        }
        Ok(None) => {
            app.audit_marks().remove(tenant);
            0
        }
        Err(error) => {
            tracing::warn!(%tenant, %error, "audit entries could not be chained, trying again");
            app.audit_marks().looked(tenant, now, true);
            0
        }
    });
    let chained = chained.buffer_unordered(TENANTS_AT_ONCE);
    chained.fold(0, async |sum, one| sum + one).await
}

async fn chain_one(app: &Arc<Tenancy>, tenant: TenantId) -> Result<Option<Advanced>, AuditError> {
    let because = SystemScope::because("audit entries are chained");
    match Cx::enter(app, because, tenant).await? {
        Some(cx) => Ok(Some(advance(&cx).await?)),
        None => Ok(None),
    }
}

/// Chains what has committed of the tenant's audit log.
///
/// # Errors
/// [`AuditError`].
pub async fn advance(cx: &Cx) -> Result<Advanced, AuditError> {
    cx.require(Permission::KeepAudit)?;
    let mut all = Advanced::default();
    loop {
        match cx.write(async |work| chain_block(cx, work).await).await {
            Ok(Chained {
                entries,
                more,
                waiting,
            }) => {
                (all.chained, all.waiting) = (all.chained + entries, waiting);
                if entries > 0 {
                    cx.app().chained().note(cx.scope().tenant());
                }
                if !more {
                    return Ok(all);
                }
            }
            // Another server is chaining this log.
            Err(StoreError::Unique(_)) => {
                return Ok(Advanced { waiting: true, ..all });
            }
            Err(error) => return Err(error.into()),
        }
    }
}

struct Chained {
    entries: usize,
    more: bool,
    waiting: bool,
}

async fn chain_block(cx: &Cx, work: &mut Work) -> Result<Chained, StoreError> {
    let limit = u32::try_from(Block::MOST).unwrap_or(u32::MAX);
    let chain = work.audit_chain();
    let tail = chain.tail().await?;
    let found = chain.unchained(tail.cursor, limit).await?;
    let id = AuditBlockId::next(cx.ids());
    let salt = || {
        let mut salt = Salt::default();
        salt.copy_from_slice(&cx.ports().secrets.secret()[..16]);
        salt
    };
    let block = Block::of(cx.scope().tenant(), &tail, &found.entries, (id, cx.now()), salt);
    let entries = block.as_ref().map_or(0, |block| block.links.len());
    if let Some(block) = &block {
        chain.append(block).await?;
        stream::note_block(cx, work, block).await?;
    }
    Ok(Chained {
        entries,
        more: entries < found.entries.len() || entries == Block::MOST,
        waiting: found.waiting,
    })
}

/// Signs the end of the tenant's chain, unless it is signed already, and writes the head to the server's log.
///
/// # Errors
/// [`AuditError`].
pub async fn sign_head(cx: &Cx) -> Result<Option<Head>, AuditError> {
    cx.require(Permission::KeepAudit)?;
    let head = cx
        .write(async |work| {
            let chain = work.audit_chain();
            let tail = chain.tail().await?;
            let last = chain.last_head(HeadKind::Head).await?;
            if tail.sequence <= last.map_or(0, |last| last.sequence) {
                return Ok::<_, AuditError>(None);
            }
            let head = sign(cx, HeadKind::Head, &tail);
            chain.add_head(&head).await?;
            stream::note_head(cx, work, &head).await?;
            Ok(Some(head))
        })
        .await?;
    if let Some(head) = &head {
        tracing::info!(
            tenant_id = %cx.scope().tenant(),
            sequence = head.sequence,
            hash = hex(&head.hash),
            kid = head.kid,
            signature = hex(&head.signature),
            at = %head.created_at.to_rfc3339(),
            "audit head signed"
        );
    }
    Ok(head)
}

fn sign(cx: &Cx, kind: HeadKind, tail: &Tail) -> Head {
    let mut head = Head {
        id: AuditHeadId::next(cx.ids()),
        created_at: cx.now(),
        kind,
        sequence: tail.sequence,
        hash: tail.hash,
        kid: String::new(),
        public_key: Vec::new(),
        signature: Vec::new(),
    };
    let ports = cx.ports();
    let signature = ports.key_ring.sign(head.message(cx.scope().tenant()).as_bytes());
    // The signing keys rotate and are deleted; sealed, the key is trusted without them.
    head.public_key = ports
        .seal
        .seal(&Head::place(&signature.kid), &signature.public_key);
    (head.kid, head.signature) = (signature.kid, signature.bytes);
    head
}

/// Deletes the chained entries of before a time, in bounded transactions. Each leaves a signed checkpoint from which the rest is
/// verified. Returns how many entries were deleted.
///
/// # Errors
/// [`AuditError`].
pub async fn retain(cx: &Cx, before: Time) -> Result<u64, AuditError> {
    cx.require(Permission::KeepAudit)?;
    let mut all = 0;
    let mut through = 0;
    while let Some((sequence, deleted)) = cx.write(async |work| delete_some(cx, work, before).await).await? {
        (all, through) = (all + deleted, sequence);
    }
    if all > 0 {
        cx.write(async |work| {
            let details = json!({"entries": all, "through_sequence": through, "before": before});
            let event = cx.security("audit.retained", "audit_log", None, details);
            work.audit().record(event).await
        })
        .await?;
    }
    Ok(all)
}

/// The number behind which entries wait for the stream. There is none where nothing is streamed.
async fn unsent_behind(cx: &Cx, work: &mut Work) -> Result<i64, StoreError> {
    if cx.ports().audit_receiver.is_none() {
        return Ok(i64::MAX);
    }
    Ok(work.audit_streams().sent().await?.unwrap_or(i64::MAX))
}

async fn delete_some(cx: &Cx, work: &mut Work, before: Time) -> Result<Option<(i64, u64)>, StoreError> {
    let unsent = unsent_behind(cx, work).await?;
    let held = |block: &Block| block.last_sequence() > unsent && block.max_at >= before - HELD_FOR_THE_STREAM;
    let chain = work.audit_chain();
    let blocks = chain.blocks_after(0, DELETED_AT_ONCE).await?;
    let old = blocks
        .iter()
        .take_while(|block| block.max_at < before && !held(block));
    let Some(last) = old.last() else {
        return Ok(None);
    };
    let checkpoint = sign(cx, HeadKind::Checkpoint, &last.tail());
    chain.add_head(&checkpoint).await?;
    let deleted = chain.retain(checkpoint.sequence).await?;
    Ok(Some((checkpoint.sequence, deleted)))
}
