//! The search for suspicious activity in the audit log of a tenant.
//!
//! It reads entries that are chained, block by block, behind the number that it has read up to. What it has counted, that number and
//! the alerts are stored in one transaction, under a lock of the tenant's row of counts. So an entry is counted once, although
//! processes are killed and several search at once. Requests wait for none of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tenantry_domain::audit::AuditEntry;
use tenantry_domain::kernel::{
    Permission, SecurityAlertId, SecurityDetectionId, StoreError, SystemScope, TenantId,
};
use tenantry_domain::security::{
    Alert, AlertAction, AlertKey, AlertNotice, Detection, Hits, Rule, RuleChanges, Severity, Subject,
    SubjectKind,
};
use tenantry_domain::store::Work;

use crate::identity::session;
use crate::operations::job::{JobFailure, JobHandler, Nothing};
use crate::security::alert::AlertError;
use crate::security::notice;
use crate::security::rule;
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
    let raised = match next_block(work, detection.sequence).await? {
        Some((last, entries)) => {
            let raised = raise_all(cx, work, &mut detection, &entries, changes).await?;
            detection.sequence = last;
            raised
        }
        None if is_first => Vec::new(),
        None => return Ok(None),
    };
    detection.prune(cx.now());
    if is_first {
        let id = SecurityDetectionId::next(cx.ids());
        let detections = work.security_detections();
        detections.insert(id, &detection, cx.now()).await?;
    } else {
        work.security_detections().update(&detection).await?;
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

async fn raise_all(
    cx: &Cx,
    work: &mut Work,
    detection: &mut Detection,
    entries: &[(i64, AuditEntry)],
    changes: &RuleChanges,
) -> Result<Vec<&'static Rule>, StoreError> {
    let terms = |rule: &Rule| rule::terms(cx, rule, changes);
    let found = detection.read(entries, terms, cx.now());
    let names: Vec<_> = found.keys().map(AlertKey::name).collect();
    let mut open = work.security_alerts().open_for_update(&names).await?;
    let mut raised = Vec::new();
    for (key, hits) in &found {
        let terms = terms(key.rule);
        let reached = detection.count(key, hits, terms);
        if let (Some(mut alert), Some(total)) = (open.remove(&key.name()), hits.total()) {
            alert.add(&total);
            if reached.is_some() {
                act(cx, work, &mut alert, terms.action).await?;
            }
            work.security_alerts().update(&alert).await?;
        } else if let Some(hits) = reached
            && raise(cx, work, detection, (key, terms.action), &hits).await?
        {
            raised.push(key.rule);
        }
    }
    Ok(raised)
}

/// Raises an alert. With too many open ones of its rule it is counted in the one about the tenant. Returns whether there is a new one.
async fn raise(
    cx: &Cx,
    work: &mut Work,
    detection: &mut Detection,
    (key, action): (&AlertKey, AlertAction),
    hits: &Hits,
) -> Result<bool, StoreError> {
    let mut key = key.clone();
    if work.security_alerts().count_open(key.rule.id).await? >= Alert::MOST_OPEN {
        key.subject = Subject::new(SubjectKind::Tenant, cx.scope().tenant());
        let mut open: HashMap<_, _> = work.security_alerts().open_for_update(&[key.name()]).await?;
        if let Some(mut all) = open.remove(&key.name()) {
            all.add(hits);
            work.security_alerts().update(&all).await?;
            return Ok(false);
        }
    }
    let mut alert = Alert::raised(SecurityAlertId::next(cx.ids()), &key, hits, cx.now());
    act(cx, work, &mut alert, action).await?;
    work.security_alerts().insert(&alert).await?;
    record(cx, work, &alert).await?;
    if detection.may_mail(key.rule, cx.now()) {
        notice::mail_admins(cx, work, &notice_of(&alert)).await?;
    }
    Ok(true)
}

/// Does to the user what the rule says.
async fn act(cx: &Cx, work: &mut Work, alert: &mut Alert, action: AlertAction) -> Result<(), StoreError> {
    let Some(user) = alert.subject.user() else {
        return Ok(());
    };
    match action {
        AlertAction::Nothing => return Ok(()),
        AlertAction::StepUp => {}
        AlertAction::EndSessions => session::end_for_alert(cx, work, user).await?,
    }
    (alert.action, alert.acted_at) = (action, Some(cx.now()));
    Ok(())
}

async fn record(cx: &Cx, work: &mut Work, alert: &Alert) -> Result<(), StoreError> {
    let details = json!({
        "rule": alert.rule,
        "severity": alert.severity,
        "subject_kind": alert.subject.kind,
        "subject": alert.subject.id,
        "count": alert.count,
        "action": alert.action,
    });
    let id = Some(alert.id.uuid());
    let event = cx.security("security.alert_raised", "security_alert", id, details);
    work.audit().record(event).await
}

fn notice_of(alert: &Alert) -> AlertNotice {
    AlertNotice {
        alert: alert.id,
        rule: alert.rule.clone(),
        severity: alert.severity,
        count: alert.count,
        subject_kind: alert.subject.kind,
        subject: alert.subject.id.clone(),
        action: alert.action,
    }
}
