//! Thresholds of quotas: each is told of once in a period.

use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_domain::billing::{Notice, QuotaNotice};
use tenantry_domain::kernel::{Permission, QuotaAlertId, StoreError};
use tenantry_domain::store::Work;
use tenantry_domain::usage::{MeterKey, MeterTerms, QuotaAlert, QuotaCounter};
use tenantry_tenancy::Cx;
use tenantry_tenancy::operations::job::{self, JobFailure, JobHandler, Terms, store_error};
use tenantry_tenancy::operations::mail::{SendMail, tell_admins};

/// Tells of a threshold that was reached: in the tenant's audit log, and its admins by mail.
#[derive(Debug, Clone, Copy)]
pub struct TellAlert;

/// What is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Which {
    /// The alert to send notices of.
    pub alert: QuotaAlertId,
}

impl JobHandler for TellAlert {
    const KIND: &'static str = "quota.alert";
    // A tenant that is suspended is told too.
    const WRITES: bool = false;
    type Payload = Which;

    async fn run(&self, cx: &Cx, payload: Which) -> Result<(), JobFailure> {
        cx.require(Permission::LendQuota)?;
        cx.write(async |work| {
            let alert = work.quotas().alert_for_update(payload.alert).await?;
            // It went with its period, or a worker told it and died before it could say so.
            let Some(alert) = alert.filter(|alert| alert.told_at.is_none()) else {
                return Ok(());
            };
            let details = json!({
                "meter": alert.meter, "period_start": alert.period.start, "of": alert.threshold.base,
                "percent": alert.threshold.percent, "amount": alert.threshold.amount, "used": alert.used,
            });
            let target = Some(alert.id.uuid());
            let event = cx.security("quota.threshold_reached", "quota_alert", target, details);
            work.audit().record(event).await?;
            tell_admins::<SendMail>(cx, work, &notice(cx, &alert)).await?;
            work.quotas().tell_alert(alert.id, cx.now()).await?;
            Ok(())
        })
        .await
    }
}

/// What people are told by mail.
fn notice(cx: &Cx, alert: &QuotaAlert) -> Notice {
    let meter = cx.ports().plans.meters().get(&alert.meter);
    let title = meter.map_or(alert.meter.as_str(), |meter| &meter.title);
    Notice::Quota(QuotaNotice {
        meter: alert.meter.clone(),
        title: title.to_owned(),
        threshold: alert.threshold,
        used: alert.used,
        enforced: alert.meter.as_str() != MeterKey::API_CALLS || cx.app().policy.enforce_api_calls,
        period: alert.period,
    })
}

/// Stores an alert for each threshold that a counter has reached and nobody was told of, with the job that tells it. The
/// counter is locked, so of any number of requests that reach a threshold one finds it untold.
pub(crate) async fn raise(
    cx: &Cx,
    work: &mut Work,
    counter: &mut QuotaCounter,
    terms: &MeterTerms,
) -> Result<(), StoreError> {
    let due = counter.due_alerts(terms, &cx.app().policy.quota_thresholds);
    if due.is_empty() {
        return Ok(());
    }
    work.quotas().save(counter).await?;
    for threshold in due {
        let alert = QuotaAlert {
            id: QuotaAlertId::next(cx.ids()),
            counter: counter.id,
            meter: counter.meter.clone(),
            period: counter.period,
            threshold,
            used: counter.tally.used,
            created_at: cx.now(),
            told_at: None,
        };
        if work.quotas().insert_alert(&alert).await? {
            let which = Which { alert: alert.id };
            let asked = job::enqueue::<TellAlert>(cx, work, &which, Terms::default()).await;
            asked.map_err(store_error)?;
        }
    }
    Ok(())
}
