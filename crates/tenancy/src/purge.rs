//! What nobody needs any more is deleted: once a day, in each tenant's own scope.

use std::sync::Arc;

use chrono::Duration;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_domain::{Denied, Permission, SystemScope, TenantId, TenantStatus};

use crate::job::{self, JobError, JobFailure, JobHandler, SystemJobHandler, Terms};
use crate::{Cx, Origin, Tenancy, quota};

/// For how long ended sessions and finished jobs are kept, in days: for whoever looks into what happened.
pub const KEPT_DAYS: i64 = 30;

/// Deletes the ended sessions of a tenant, its jobs that were done or cancelled, its idempotency keys that are free
/// again, and what was counted of its quotas; parts of quotas that nobody returned are taken back. Jobs that were given up stay until somebody has looked at them.
#[derive(Debug, Clone, Copy)]
pub struct Purge;

/// What is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// What ended more than so many days ago.
    pub days: i64,
}

impl JobHandler for Purge {
    const KIND: &'static str = "tenant.purge";
    type Payload = Ended;

    async fn run(&self, cx: &Cx, payload: Ended) -> Result<(), JobFailure> {
        cx.require(Permission::Purge)?;
        let before = cx.now() - Duration::days(payload.days.clamp(0, 36_500));
        cx.write(async |work| {
            work.jobs().delete_finished(before).await?;
            // A key that is free again says nothing to anybody, so these are not kept for so many days.
            work.idempotency_keys().delete_expired(cx.now()).await?;
            quota::purge(work, before).await?;
            let sessions = work.sessions().delete_ended(before).await?;
            if sessions > 0 {
                let details = json!({"sessions": sessions, "ended_before": before});
                let event = cx.security("session.purged", "session", None, details);
                work.audit().record(event).await?;
            }
            Ok(())
        })
        .await
    }
}

/// Asks for [`Purge`] in every tenant.
#[derive(Debug, Clone, Copy)]
pub struct PurgeAll;

impl SystemJobHandler for PurgeAll {
    const KIND: &'static str = "tenant.purge_all";
    type Payload = Ended;

    async fn run(&self, app: &Arc<Tenancy>, because: SystemScope, payload: Ended) -> Result<(), JobFailure> {
        let mut after = None;
        loop {
            let tenants = app.ports.registry.list(because, after, 500).await?;
            let Some(last) = tenants.last() else { return Ok(()) };
            after = Some(last.id);
            for tenant in tenants
                .iter()
                .filter(|tenant| tenant.status != TenantStatus::Deleted)
            {
                ask(app, because, tenant.id, payload).await?;
            }
        }
    }

    fn schedule() -> Option<(Duration, Ended)> {
        Some((Duration::days(1), Ended { days: KEPT_DAYS }))
    }
}

async fn ask(
    app: &Arc<Tenancy>,
    because: SystemScope,
    tenant: TenantId,
    payload: Ended,
) -> Result<(), JobFailure> {
    let scope = match app.ports.gate.system(because, tenant).await {
        Ok(scope) => scope,
        // Deleted since it was listed.
        Err(Denied::TenantGone | Denied::TenantNotFound) => return Ok(()),
        Err(denied) => return Err(JobFailure::Retry(denied.to_string())),
    };
    let cx = Cx::new(Arc::clone(app), scope, Origin::default());
    let terms = Terms {
        // One is enough, also while the tenant is suspended for weeks.
        dedupe_key: Some(Purge::KIND.to_owned()),
        ..Terms::default()
    };
    let asked = cx
        .write(async |work| job::enqueue::<Purge>(&cx, work, &payload, terms).await)
        .await;
    asked.map(|_| ()).map_err(|error| match error {
        JobError::Store(error) => JobFailure::Store(error),
        other => JobFailure::Retry(other.to_string()),
    })
}
