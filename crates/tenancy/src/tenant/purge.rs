//! What nobody needs any more is deleted, in each tenant's own scope; [`upkeep`](crate::tenant::upkeep) says when.

use std::sync::Arc;

use chrono::Duration;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tenantry_domain::identity::Lockout;
use tenantry_domain::kernel::{Permission, StoreError, SystemScope};
use tenantry_domain::operations::{MailLimits, SystemJobs};

use crate::archive::export;
use crate::identity::{address, invitation};
use crate::operations::job::{JobFailure, JobHandler, Nothing, SystemJobHandler};
use crate::{Cx, Tenancy};

/// For how long ended sessions and finished jobs are kept, in days: for whoever looks into what happened.
pub const KEPT_DAYS: i64 = 30;

/// Deletes the ended sessions of a tenant, its revoked API keys, its invitations that were accepted, revoked or expired, registrations that waited for the
/// proof of their address for seven days, its jobs that were done or
/// cancelled, its idempotency keys that are free again, expired links, logins that no longer wait for a second factor, ceremonies of passkeys that would have ended, and what was counted
/// of its quotas, and the archives of its exports whose time is over; parts of quotas that nobody returned are taken back, and count no more once the period is over. Jobs that
/// were given up stay until somebody has looked at them.
#[derive(Debug, Clone, Copy)]
pub struct Purge;

/// What is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// What ended more than so many days ago.
    pub days: i64,
}

impl Ended {
    fn length(self) -> Duration {
        Duration::days(self.days.clamp(0, 36_500))
    }
}

impl JobHandler for Purge {
    const KIND: &'static str = "tenant.purge";
    type Payload = Ended;

    async fn run(&self, cx: &Cx, payload: Ended) -> Result<(), JobFailure> {
        cx.require(Permission::Purge)?;
        let before = cx.now() - payload.length();
        cx.ports().quota_recovery.lapse(cx).await?;
        cx.write(async |work| {
            work.jobs().delete_finished(before).await?;
            // A key that is free again says nothing to anybody, so these are not kept for so many days.
            work.idempotency_keys().delete_expired(cx.now()).await?;
            work.second_factors().delete_expired(cx.now()).await?;
            // Clocks of servers differ: none may accept what was finished under another.
            work.passkeys()
                .delete_ended(cx.now() - Duration::hours(1))
                .await?;
            work.lockouts().delete_before(cx.now() - Lockout::MEMORY).await?;
            work.account_links().delete_expired(cx.now()).await?;
            work.quotas().delete_ended(before).await?;
            work.api_keys().delete_revoked(before).await?;
            let sessions = work.sessions().delete_ended(before).await?;
            if sessions > 0 {
                let details = json!({"sessions": sessions, "ended_before": before});
                let event = cx.security("session.purged", "session", None, details);
                work.audit().record(event).await?;
            }
            Ok::<_, StoreError>(())
        })
        .await?;
        invitation::purge(cx, before).await?;
        address::purge_registrations(cx).await?;
        export::expire(cx).await?;
        // In transactions of its own: each counter is locked while it is put right.
        cx.ports().quota_recovery.reconcile_ended(cx).await?;
        Ok(())
    }
}

/// Frees the slugs and subdomains whose quarantine is over: tenants gave them up so long ago that links and mails with them
/// no longer lead anybody to the wrong tenant.
#[derive(Debug, Clone, Copy)]
pub struct FreeNames;

impl SystemJobHandler for FreeNames {
    const KIND: &'static str = "tenant_name.free";
    type Payload = Nothing;

    async fn run(&self, app: &Arc<Tenancy>, because: SystemScope, _: Nothing) -> Result<(), JobFailure> {
        let quarantine = Duration::days(app.policy.name_quarantine_days.into());
        let before = app.ports.clock.now() - quarantine;
        let freed = app.ports.registry.free_names(because, before).await?;
        tracing::info!(freed, "names of tenants are free after their quarantine");
        Ok(())
    }

    fn schedule() -> Option<(Duration, Nothing)> {
        Some((Duration::days(1), Nothing {}))
    }
}

/// Deletes the records of mails that no limit counts any more.
#[derive(Debug, Clone, Copy)]
pub struct PurgeSentMails;

impl SystemJobHandler for PurgeSentMails {
    const KIND: &'static str = "sent_mail.purge";
    type Payload = Nothing;

    async fn run(&self, app: &Arc<Tenancy>, because: SystemScope, _: Nothing) -> Result<(), JobFailure> {
        let before = app.ports.clock.now() - MailLimits::WINDOW;
        let deleted = app.ports.sent_mails.delete_before(because, before).await?;
        tracing::info!(deleted, "records of sent mails were deleted");
        Ok(())
    }

    fn schedule() -> Option<(Duration, Nothing)> {
        Some((Duration::hours(1), Nothing {}))
    }
}

/// Deletes the system's own jobs that were done or cancelled.
pub struct PurgeSystemJobs {
    queue: Arc<dyn SystemJobs>,
}

impl std::fmt::Debug for PurgeSystemJobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PurgeSystemJobs")
    }
}

impl PurgeSystemJobs {
    /// Deletes from this queue.
    pub fn new(queue: Arc<dyn SystemJobs>) -> Self {
        Self { queue }
    }
}

impl SystemJobHandler for PurgeSystemJobs {
    const KIND: &'static str = "system_job.purge";
    type Payload = Ended;

    async fn run(&self, app: &Arc<Tenancy>, because: SystemScope, payload: Ended) -> Result<(), JobFailure> {
        let before = app.ports.clock.now() - payload.length();
        let deleted = self.queue.delete_finished(because, before).await?;
        tracing::info!(deleted, "jobs of the system's own that are over were deleted");
        Ok(())
    }

    fn schedule() -> Option<(Duration, Ended)> {
        Some((Duration::days(1), Ended { days: KEPT_DAYS }))
    }
}
