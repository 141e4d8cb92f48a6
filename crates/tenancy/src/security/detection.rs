//! The search for suspicious activity in the audit log of a tenant.
//!
//! It reads entries that are chained, block by block, behind the number that it has read up to. What it has counted, that number and
//! the alerts are stored in one transaction, under a lock of the tenant's row of counts. So an entry is counted once, although
//! processes are killed and several search at once. Requests wait for none of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt as _, stream};
use tenantry_domain::audit::AuditEntry;
use tenantry_domain::kernel::{Permission, SecurityDetectionId, StoreError, SystemScope, TenantId};
use tenantry_domain::security::{Detection, Rule, RuleChanges, Severity};
use tenantry_domain::store::Work;

use crate::operations::job::{JobFailure, JobHandler, Nothing};
use crate::security::alert::AlertError;
use crate::security::{raise, rule};
use crate::{Cx, Tenancy};

/// In how many tenants at once is searched, so that requests find connections.
const TENANTS_AT_ONCE: usize = 2;

/// The most blocks of a tenant in one round. The rest waits until others had their turn.
const BLOCKS_AT_ONCE: u32 = 4;

/// What was raised, by rule and severity, since the process began.
#[derive(Debug, Default)]
pub struct AlertTally(Mutex<BTreeMap<(&'static str, Severity), u64>>);

impl Tenancy {
    /// Returns how many alerts this process has raised.
    pub fn alert_tally(&self) -> Arc<AlertTally> {
        self.state()
    }
}

impl AlertTally {
    /// Returns how many alerts were raised, by rule and severity.
    pub fn counts(&self) -> BTreeMap<(&'static str, Severity), u64> {
        self.tally().clone()
    }

    fn add(&self, raised: &[&'static Rule]) {
        let mut tally = self.tally();
        for rule in raised {
            *tally.entry((rule.id, rule.severity)).or_default() += 1;
        }
    }

    /// Counts are changed by code that does not panic.
    fn tally(&self) -> MutexGuard<'_, BTreeMap<(&'static str, Severity), u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Searches a tenant's audit log: what a killed server left, within a day.
#[derive(Debug, Clone, Copy)]
pub struct DetectActivity;

impl JobHandler for DetectActivity {
    const KIND: &'static str = "security.detect";
    // Alerts are raised in a suspended tenant, too.
    const WRITES: bool = false;
    type Payload = Nothing;

    async fn run(&self, cx: &Cx, _: Nothing) -> Result<(), JobFailure> {
        loop {
            let found = detect(cx).await;
            let found = found.map_err(|error| JobFailure::Retry(error.to_string()))?;
            if !found.more {
                return Ok(());
            }
        }
    }
}

/// What a round has found in a tenant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Detected {
    /// How many alerts were raised.
    pub raised: usize,
    /// Whether there may be more entries to read.
    pub more: bool,
}

/// Searches the audit logs of the tenants whose entries this process has chained. Returns how many alerts were raised.
pub async fn detect_due(app: &Arc<Tenancy>) -> usize {
    let due = app.chained().take();
    let searched = stream::iter(due).map(async |tenant| match detect_in(app, tenant).await {
        Ok(found) => {
            if found.more {
                app.chained().note(tenant);
            }
            found.raised
        }
        Err(error) => {
            tracing::warn!(%tenant, %error, "the audit log could not be searched, trying again");
            app.chained().note(tenant);
            0
        }
    });
    let searched = searched.buffer_unordered(TENANTS_AT_ONCE);
    searched.fold(0, async |sum, one| sum + one).await
}

async fn detect_in(app: &Arc<Tenancy>, tenant: TenantId) -> Result<Detected, AlertError> {
    let because = SystemScope::because("suspicious activity is searched for");
    match Cx::enter(app, because, tenant).await? {
        Some(cx) => detect(&cx).await,
        None => Ok(Detected::default()),
    }
}

/// Searches the next blocks of the tenant's audit log.
///
/// # Errors
/// [`AlertError`].
pub async fn detect(cx: &Cx) -> Result<Detected, AlertError> {
    cx.require(Permission::RaiseAlerts)?;
    let changes = rule::changes(cx).await?;
    let mut all = Detected::default();
    for _ in 0..BLOCKS_AT_ONCE {
        match cx.write(async |work| read_block(cx, work, &changes).await).await {
            Ok(None) => return Ok(Detected { more: false, ..all }),
            Ok(Some(raised)) => {
                cx.app().alert_tally().add(&raised);
                all.raised += raised.len();
            }
            // Another server reads this log for the first time.
            Err(StoreError::Unique(_)) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(Detected { more: true, ..all })
}

/// Reads the next block. Returns the rules whose alerts were raised; `None` when there is no block.
async fn read_block(
    cx: &Cx,
    work: &mut Work,
    changes: &RuleChanges,
) -> Result<Option<Vec<&'static Rule>>, StoreError> {
    let stored = work.security_detections().current_for_update().await?;
    let is_first = stored.is_none();
    let mut detection = match stored {
        Some(detection) => detection,
        None => first(cx, work).await?,
    };
    let before = detection.clone();
    let raised = match next_block(work, detection.sequence).await? {
        Some((last, entries)) => {
            let raised = raise::raise_all(cx, work, &mut detection, &entries, changes).await?;
            detection.sequence = last;
            if let Some(read_to) = entries.iter().map(|(_, entry)| entry.at).max() {
                detection.prune(read_to, cx.now());
            }
            raised
        }
        None if is_first => Vec::new(),
        None => return Ok(None),
    };
    let detections = work.security_detections();
    if is_first {
        let id = SecurityDetectionId::next(cx.ids());
        detections.insert(id, &detection, cx.now()).await?;
    } else if detection.differs_from(&before) {
        detections.update(&detection).await?;
    } else {
        detections.update_sequence(detection.sequence).await?;
    }
    Ok(Some(raised))
}

/// Where a log begins that is read for the first time: what is older than a day raises no alert.
async fn first(cx: &Cx, work: &mut Work) -> Result<Detection, StoreError> {
    let since = cx.now() - Detection::oldest();
    let begin = work.security_detections().begin_since(since).await?;
    let sequence = match begin {
        Some(sequence) => sequence,
        None => work.audit_chain().tail().await?.sequence,
    };
    Ok(Detection::beginning_at(sequence))
}

/// The entries of the next block, with their numbers and the last of them. An entry that is missing is a matter of the log's verification.
async fn next_block(work: &mut Work, sequence: i64) -> Result<Option<NumberedBlock>, StoreError> {
    let chain = work.audit_chain();
    let blocks = chain.blocks_after(sequence, 1).await?;
    let Some(block) = blocks.first() else {
        return Ok(None);
    };
    let ids: Vec<_> = block.links.iter().map(|link| link.id).collect();
    let mut entries = chain.entries(&ids).await?;
    let numbered = block.numbered();
    let numbered = numbered.filter_map(|(number, link)| Some((number, entries.remove(&link.id)?)));
    Ok(Some((block.last_sequence(), numbered.collect())))
}

/// The number of the last entry of a block, and its entries with theirs.
type NumberedBlock = (i64, Vec<(i64, AuditEntry)>);
