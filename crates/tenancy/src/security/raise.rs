//! Alerts that are raised from what the rules have counted, and what is done to the users that they are about.

use std::collections::HashMap;

use serde_json::json;
use tenantry_domain::audit::AuditEntry;
use tenantry_domain::kernel::{SecurityAlertId, StoreError, UserId};
use tenantry_domain::security::{
    Alert, AlertAction, AlertKey, AlertNotice, Detection, Hits, MailDecision, Rule, RuleChanges, Subject,
    SubjectKind,
};
use tenantry_domain::store::Work;

use crate::Cx;
use crate::identity::session;
use crate::kernel::step_up;
use crate::security::{notice, rule};

/// The open alerts that a batch of entries is about, by their keys.
type OpenAlerts = HashMap<String, Alert>;

/// What a rule has found of a subject, and what it does to a user.
struct Reached<'a> {
    key: &'a AlertKey,
    hits: Hits,
    action: AlertAction,
}

/// Counts entries, and raises the alerts whose thresholds are reached. Returns the rules of those that were not open yet.
pub(super) async fn raise_all(
    cx: &Cx,
    work: &mut Work,
    detection: &mut Detection,
    entries: &[(i64, AuditEntry)],
    changes: &RuleChanges,
) -> Result<Vec<&'static Rule>, StoreError> {
    let terms = |rule: &Rule| rule::terms(cx, rule, changes);
    let found = detection.read(cx.scope().tenant(), entries, terms, cx.now());
    let names: Vec<_> = found.keys().map(AlertKey::name).collect();
    let mut open = work.security_alerts().open_for_update(&names).await?;
    let mut raised = Vec::new();
    for (key, found) in &found {
        let terms = terms(key.rule);
        let reached = detection.count(key, found, terms);
        if let (Some(alert), Some(total)) = (open.get_mut(&key.name()), found.total()) {
            alert.add(&total);
            if reached.is_some()
                && let Some(done) = act(cx, work, &key.subject, terms.action).await?
            {
                alert.acted(done, cx.now());
            }
            work.security_alerts().update(alert).await?;
        } else if let Some(hits) = reached {
            let action = terms.action;
            raise(cx, work, (detection, &mut open), &Reached { key, hits, action }).await?;
            raised.push(key.rule);
        }
    }
    Ok(raised)
}

/// Raises an alert. With too many open ones of its rule it is counted in the one about the tenant; what the rule does is done to its own
/// subject all the same, and it is recorded and mailed like others.
async fn raise(
    cx: &Cx,
    work: &mut Work,
    (detection, open): (&mut Detection, &mut OpenAlerts),
    reached: &Reached<'_>,
) -> Result<(), StoreError> {
    let (rule, subject) = (reached.key.rule, &reached.key.subject);
    let acts = reached.action != AlertAction::Nothing && subject.user().is_some();
    let most = if acts {
        Alert::MOST_ACTING
    } else {
        Alert::MOST_OPEN
    };
    let is_folded = work.security_alerts().count_open(rule.id).await? >= most;
    let action = match reached.action {
        // A session asks the user's own alert whether the factor is needed again.
        AlertAction::StepUp if is_folded => AlertAction::EndSessions,
        action => action,
    };
    let done = act(cx, work, subject, action).await?;
    let id = if is_folded {
        fold(cx, work, open, reached, done).await?
    } else {
        insert(cx, work, reached.key, &reached.hits, done).await?.id
    };
    let notice = AlertNotice {
        alert: id,
        rule: rule.id.to_owned(),
        severity: rule.severity,
        count: i64::try_from(reached.hits.count).unwrap_or(i64::MAX),
        subject_kind: subject.kind,
        subject: subject.id.clone(),
        action: done.unwrap_or(AlertAction::Nothing),
        further: 0,
    };
    record(cx, work, &notice).await?;
    match detection.decide_mail(rule, &notice, cx.now()) {
        MailDecision::Send => notice::mail_admins(cx, work, &notice).await,
        MailDecision::Hold(until) => notice::mail_later(cx, work, rule, until).await,
    }
}

async fn insert(
    cx: &Cx,
    work: &mut Work,
    key: &AlertKey,
    hits: &Hits,
    done: Option<AlertAction>,
) -> Result<Alert, StoreError> {
    let mut alert = Alert::raised(SecurityAlertId::next(cx.ids()), key, hits, cx.now());
    if let Some(done) = done {
        alert.acted(done, cx.now());
    }
    work.security_alerts().insert(&alert).await?;
    Ok(alert)
}

/// Counts an alert in the one about the tenant. Returns the id of that.
async fn fold(
    cx: &Cx,
    work: &mut Work,
    open: &mut OpenAlerts,
    reached: &Reached<'_>,
    done: Option<AlertAction>,
) -> Result<SecurityAlertId, StoreError> {
    let key = AlertKey {
        rule: reached.key.rule,
        subject: Subject::new(SubjectKind::Tenant, cx.scope().tenant()),
    };
    let name = key.name();
    if !open.contains_key(&name) {
        let stored = work
            .security_alerts()
            .open_for_update(std::slice::from_ref(&name));
        open.extend(stored.await?);
    }
    let Some(all) = open.get_mut(&name) else {
        let alert = insert(cx, work, &key, &reached.hits, done).await?;
        let id = alert.id;
        open.insert(name, alert);
        return Ok(id);
    };
    all.add(&reached.hits);
    if let Some(done) = done {
        all.acted(done, cx.now());
    }
    work.security_alerts().update(all).await?;
    Ok(all.id)
}

/// Does to the user what a rule says. Returns what was done; `None` where nothing was.
async fn act(
    cx: &Cx,
    work: &mut Work,
    subject: &Subject,
    action: AlertAction,
) -> Result<Option<AlertAction>, StoreError> {
    let Some(user) = subject.user() else {
        return Ok(None);
    };
    match action {
        AlertAction::Nothing => Ok(None),
        AlertAction::StepUp if can_step_up(cx, work, user).await? => Ok(Some(AlertAction::StepUp)),
        AlertAction::StepUp | AlertAction::EndSessions => {
            let ended = session::end_for_alert(cx, work, user).await?;
            Ok(ended.then_some(AlertAction::EndSessions))
        }
    }
}

/// Whether a user has a factor to give again. One that was enabled lately may be a thief's.
async fn can_step_up(cx: &Cx, work: &mut Work, user: UserId) -> Result<bool, StoreError> {
    Ok(step_up::has_factor(cx, work, user).await? && !step_up::has_unsettled_factor(cx, work, user).await?)
}

async fn record(cx: &Cx, work: &mut Work, notice: &AlertNotice) -> Result<(), StoreError> {
    let details = json!({
        "rule": notice.rule,
        "severity": notice.severity,
        "subject_kind": notice.subject_kind,
        "subject": notice.subject,
        "count": notice.count,
        "action": notice.action,
    });
    let id = Some(notice.alert.uuid());
    let event = cx.security("security.alert_raised", "security_alert", id, details);
    work.audit().record(event).await
}
