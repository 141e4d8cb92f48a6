//! What is done to the rows of a tenant after its state has changed: they are marked as deleted, restored or erased, in batches.
//!
//! The state of the tenant alone says what is to be done. So a server that is killed in the middle loses nothing: the next one goes on,
//! and two at once do nothing twice.

use std::sync::Arc;

use chrono::Duration;
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use tenantry_domain::kernel::{Constraint, StoreError, SystemScope, TenantId, Time};
use tenantry_domain::tenant::{
    InvalidTransition, RowStep, RowTable, RowWork, StatusChange, Tenant, TenantStatus,
};
use uuid::Uuid;

use crate::operations::job::{JobFailure, Nothing, SystemJobHandler};
use crate::tenant::archive_files;
use crate::tenant::lifecycle::{self, LifecycleError, LifecycleReason, Log};
use crate::{OperatorCx, Tenancy};

/// So many rows a batch has at the most: some milliseconds, in which others wait for none of them.
const BATCH: u32 = 1_000;

/// So many tenants are worked on at once.
const AT_ONCE: usize = 4;

/// So many tenants are read at a time.
const LISTED: u32 = 500;

/// So often a tenant is begun anew within one call, when rows were added or its state changed meanwhile.
const ROUNDS: usize = 8;

const BECAUSE: SystemScope = SystemScope::because("the rows of a tenant follow its state");

/// How far the work on the rows of a tenant is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowProgress {
    /// What is done.
    pub work: RowWork,
    /// The table that is worked on.
    pub table: String,
    /// How many of its rows were changed by this call.
    pub rows: u64,
}

/// What is left to do when a call of [`settle`] ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Nothing.
    Done,
    /// The time was over.
    Later,
}

/// Restores a deleted tenant: exactly the rows that its deletion has marked. What is left to do when `until` is over, a job does;
/// until then the tenant stays deleted.
///
/// # Errors
/// [`LifecycleError`].
pub async fn restore(
    cx: &OperatorCx,
    tenant: TenantId,
    reason: &str,
    until: Option<Time>,
) -> Result<Tenant, LifecycleError> {
    lifecycle::begin_restore(cx, tenant, reason).await?;
    settle(cx.app(), tenant, until, &|_| {}).await?;
    lifecycle::get(cx, tenant).await
}

/// Does what is still to be done to the rows of a tenant, until it is done or `until` is over. `notice` hears how far it is after
/// each batch.
///
/// # Errors
/// [`LifecycleReason::NameInUse`] where a row cannot be restored, [`LifecycleReason::ArchivesElsewhere`] where this process cannot delete
/// the archives of a tenant that is purged; those of the store and of the payment provider.
pub async fn settle(
    app: &Arc<Tenancy>,
    tenant: TenantId,
    until: Option<Time>,
    notice: &(dyn Fn(&RowProgress) + Sync),
) -> Result<Settled, LifecycleError> {
    let cx = OperatorCx::command(app, BECAUSE);
    for _ in 0..ROUNDS {
        let Some(found) = app.ports.tenant_rows.tenant(BECAUSE, tenant).await? else {
            return Ok(Settled::Done);
        };
        let Some(work) = work_of(&cx, &found).await? else {
            return Ok(Settled::Done);
        };
        if work == RowWork::Purge {
            archive_files::remove(app, tenant).await?;
            app.ports.subscriptions.remove(app, BECAUSE, tenant).await?;
        }
        let pass = each_table(&cx, tenant, work, until, notice).await;
        if let (RowWork::Restore, Err(LifecycleError::Own(LifecycleReason::NameInUse))) = (work, &pass) {
            give_restoring_up(&cx, tenant).await?;
        }
        match pass? {
            Pass::Later => return Ok(Settled::Later),
            Pass::Stopped => {}
            Pass::Through => finish(&cx, tenant, work).await?,
        }
    }
    Ok(Settled::Later)
}

/// What is to be done. A deleted tenant whose time is over is purged from here on.
async fn work_of(cx: &OperatorCx, tenant: &Tenant) -> Result<Option<RowWork>, LifecycleError> {
    let due = tenant.purge_at.is_some_and(|at| at <= cx.now());
    if tenant.row_work == Some(RowWork::Restore) || tenant.status != TenantStatus::Deleted || !due {
        return Ok(tenant.row_work);
    }
    let mut work = cx.begin().await?;
    let Some(mut tenant) = work.tenant_for_update(tenant.id).await? else {
        return Ok(None);
    };
    if tenant.purge_at.is_none_or(|at| at > cx.now()) {
        return Ok(tenant.row_work);
    }
    let change = StatusChange::of_system("the time in which it could be restored is over");
    if let Err(InvalidTransition { .. }) = tenant.purge(change, cx.now()) {
        return Ok(tenant.row_work);
    }
    work.update_lifecycle(&tenant).await?;
    let record = cx.record(
        "tenant.purge_begun",
        Some(tenant.id),
        json!({"purge_at": tenant.purge_at}),
    );
    work.commit(record).await?;
    Ok(tenant.row_work)
}

enum Pass {
    Through,
    Stopped,
    Later,
}

async fn each_table(
    cx: &OperatorCx,
    tenant: TenantId,
    work: RowWork,
    until: Option<Time>,
    notice: &(dyn Fn(&RowProgress) + Sync),
) -> Result<Pass, LifecycleError> {
    let tables = cx.app().ports.tenant_rows.tables(BECAUSE).await?;
    let concerned = |table: &&RowTable| table.soft || work == RowWork::Purge;
    for table in tables.iter().filter(concerned) {
        let mut progress = RowProgress {
            work,
            table: table.name.clone(),
            rows: 0,
        };
        let mut after = None;
        loop {
            let (done, next) = match batch(cx, tenant, (work, table), after).await? {
                RowStep::Stopped => return Ok(Pass::Stopped),
                RowStep::End { done } => (done, None),
                RowStep::More { done, after } => (done, Some(after)),
            };
            progress.rows += done;
            notice(&progress);
            let Some(next) = next else { break };
            after = next;
            if until.is_some_and(|until| cx.now() > until) {
                return Ok(Pass::Later);
            }
        }
    }
    Ok(Pass::Through)
}

async fn batch(
    cx: &OperatorCx,
    tenant: TenantId,
    work: (RowWork, &RowTable),
    after: Option<Uuid>,
) -> Result<RowStep, LifecycleError> {
    let rows = &cx.app().ports.tenant_rows;
    let step = rows.step(BECAUSE, tenant, work, after, BATCH).await;
    step.map_err(|error| match error {
        StoreError::Unique(_) => LifecycleReason::NameInUse.into(),
        other => other.into(),
    })
}

/// A row cannot come back, so none does: otherwise the tenant would be neither deleted nor restored for ever.
async fn give_restoring_up(cx: &OperatorCx, id: TenantId) -> Result<(), LifecycleError> {
    let mut work = cx.begin().await?;
    let Some(mut tenant) = work.tenant_for_update(id).await? else {
        return Ok(());
    };
    if !tenant.give_restoring_up(cx.now()) {
        return Ok(());
    }
    work.update_lifecycle(&tenant).await?;
    let details = json!({"problem": LifecycleReason::NameInUse.to_string()});
    work.commit(cx.record("tenant.restore_failed", Some(id), details))
        .await?;
    Ok(())
}

/// All rows are as they should be: the tenant is, too. The entry of a restoration is stored before the tenant is back: where it cannot be
/// stored, the tenant stays deleted, and the job tries again. After a crash between the entry and the commit the job adds another entry.
async fn finish(cx: &OperatorCx, id: TenantId, done: RowWork) -> Result<(), LifecycleError> {
    // The tenant is looked up over another connection than that of the transaction.
    let log = match done {
        RowWork::Restore => Some(Log::of_restored(cx, id).await?),
        RowWork::Delete | RowWork::Purge => None,
    };
    let mut work = cx.begin().await?;
    let Some(mut tenant) = work.tenant_for_update(id).await? else {
        return Ok(());
    };
    let before = tenant.status;
    let mut details = json!({"row_counts": tenant.row_counts});
    if let Some(change) = tenant.status_change.as_ref().filter(|_| done == RowWork::Delete) {
        // The log of a deleted tenant is not streamed, and an admin who deletes a tenant leaves no other entry in this one.
        details["deleted_by"] = json!({"kind": change.actor, "id": change.actor_id, "reason": change.reason});
    }
    let (changed, action) = match done {
        RowWork::Delete => (tenant.finish_deleting(), "tenant.rows_deleted"),
        RowWork::Restore => (tenant.finish_restoring(cx.now()), "tenant.restored"),
        RowWork::Purge => {
            // A row that was added since keeps the tenant, by its foreign key: the next round erases it.
            return match work.bury(id, cx.now()).await {
                Ok(true) => Ok(work.commit(cx.record("tenant.purged", Some(id), details)).await?),
                Ok(false) | Err(StoreError::Reference(Constraint::Other(_))) => Ok(()),
                Err(error) => Err(error.into()),
            };
        }
    };
    if !changed {
        return Ok(());
    }
    work.update_lifecycle(&tenant).await?;
    if done == RowWork::Restore {
        work.requeue_parked(id).await?;
    }
    let mut record = cx.record(action, Some(id), details);
    let asked = tenant.status_change.filter(|_| done == RowWork::Restore);
    record.reason = asked.as_ref().map(|change| change.reason.clone());
    let operator = asked.as_ref().and_then(StatusChange::operator);
    let object = json!({"status": tenant.status, "reason": record.reason});
    if let Some(event) = cx.tenant_event(action, (id, operator), object) {
        work.emit(event).await?;
    }
    let Some((log, asked)) = log.zip(asked) else {
        return Ok(work.commit(record).await?);
    };
    let log = log.asked_by(asked.operator());
    log.record(action, (before, tenant.status), &asked.reason).await?;
    log.commit(work, record, &asked.reason).await
}

/// Does what is to be done to the rows of all tenants, and purges those whose time is over. One that fails keeps no other waiting;
/// the job fails in the end, and is tried again.
#[derive(Debug, Clone, Copy)]
pub struct SettleAll;

impl SystemJobHandler for SettleAll {
    const KIND: &'static str = "tenant.settle_rows";
    type Payload = Nothing;

    async fn run(&self, app: &Arc<Tenancy>, because: SystemScope, _: Nothing) -> Result<(), JobFailure> {
        let now = app.ports.clock.now();
        let pending = app.ports.tenant_rows.pending(because, now, LISTED).await?;
        let failures = stream::iter(pending)
            .map(|tenant| async move { (tenant, settle_or_leave(app, tenant).await) })
            .buffer_unordered(AT_ONCE)
            .filter_map(async |(tenant, settled)| settled.err().map(|error| format!("{tenant}: {error}")))
            .collect::<Vec<String>>()
            .await;
        match failures.first() {
            None => Ok(()),
            Some(first) => Err(JobFailure::Retry(format!(
                "the rows of {} tenants do not follow their state; {first}",
                failures.len()
            ))),
        }
    }

    fn schedule() -> Option<(Duration, Nothing)> {
        Some((Duration::minutes(1), Nothing {}))
    }
}

async fn settle_or_leave(app: &Arc<Tenancy>, tenant: TenantId) -> Result<(), LifecycleError> {
    match settle(app, tenant, None, &log).await {
        Err(LifecycleError::Own(LifecycleReason::ArchivesElsewhere)) => {
            archive_files::leave_to_another_server(app, tenant);
            Ok(())
        }
        settled => settled.map(|_| ()),
    }
}

fn log(progress: &RowProgress) {
    let RowProgress { work, table, rows } = progress;
    tracing::info!(
        work = work.as_str(),
        table,
        rows,
        "rows of a tenant follow its state"
    );
}
