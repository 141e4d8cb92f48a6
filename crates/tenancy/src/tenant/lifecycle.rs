//! What operators see of tenants and do to them.

use serde_json::{Value, json};
use tenantry_domain::kernel::{Check, OperatorId, Page, PageRequest, SystemScope, TenantId, Time};
use tenantry_domain::operations::{OperatorEvent, OperatorPermission, OperatorWork};
use tenantry_domain::tenant::{
    Capability, Denied, InvalidTransition, RowWork, StatusChange, Tenant, TenantFilter, TenantScope,
    TenantStatus,
};

use crate::{Cx, OperatorCx, OwnReason, UseCaseError};

/// Errors of the use cases that move tenants through their life.
pub type LifecycleError = UseCaseError<LifecycleReason>;

/// Why a tenant keeps its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LifecycleReason {
    /// The tenant's state does not allow it.
    #[error(transparent)]
    InvalidTransition(#[from] InvalidTransition),
    /// A name of a row that is to be restored is in use by another row.
    #[error("a name of the tenant's rows is in use by a row that was added since")]
    NameInUse,
    /// The tenant has archives of exports, which this process cannot delete.
    #[error(
        "the tenant may have archives of exports, and this process has no folder for them: set archive.directory to the folder of the servers"
    )]
    ArchivesElsewhere,
}

impl From<InvalidTransition> for LifecycleError {
    fn from(refused: InvalidTransition) -> Self {
        LifecycleReason::from(refused).into()
    }
}

impl OwnReason for LifecycleReason {}

/// A page of all tenants, newest first.
///
/// # Errors
/// [`LifecycleError`].
pub async fn list(
    cx: &OperatorCx,
    filter: &TenantFilter,
    page: PageRequest,
) -> Result<Page<Tenant>, LifecycleError> {
    cx.require(OperatorPermission::ReadTenants)?;
    if let Some(q) = &filter.q {
        Check::all(|check| check.line("/query/q", q, 1..=120))?;
    }
    let mut work = cx.begin().await?;
    let tenants = work.tenants(filter, page).await?;
    let details = json!({"status": filter.status, "plan": filter.plan, "q": filter.q});
    work.commit(cx.record("tenants.listed", None, details)).await?;
    Ok(tenants)
}

/// One tenant, deleted or not.
///
/// # Errors
/// [`LifecycleError::NotFound`], [`LifecycleError::Store`].
pub async fn get(cx: &OperatorCx, tenant: TenantId) -> Result<Tenant, LifecycleError> {
    cx.require(OperatorPermission::ReadTenants)?;
    let mut work = cx.begin().await?;
    let found = work.tenant(tenant).await?;
    // Looking for what is not there is recorded as well.
    let record = cx.record("tenant.read", Some(tenant), json!({"found": found.is_some()}));
    work.commit(record).await?;
    found.ok_or(LifecycleError::NotFound)
}

/// Makes a tenant read-only.
///
/// # Errors
/// [`LifecycleError`].
pub async fn suspend(cx: &OperatorCx, tenant: TenantId, reason: &str) -> Result<Tenant, LifecycleError> {
    cx.require(OperatorPermission::SuspendTenants)?;
    change_and_record(
        cx,
        tenant,
        (OperatorPermission::SuspendTenants, "tenant.suspended"),
        reason,
        Tenant::suspend,
    )
    .await
}

/// Lets a suspended tenant write again.
///
/// # Errors
/// [`LifecycleError`].
pub async fn resume(cx: &OperatorCx, tenant: TenantId, reason: &str) -> Result<Tenant, LifecycleError> {
    cx.require(OperatorPermission::SuspendTenants)?;
    change_and_record(
        cx,
        tenant,
        (OperatorPermission::SuspendTenants, "tenant.resumed"),
        reason,
        Tenant::resume,
    )
    .await
}

/// Deletes a tenant: it is gone for everybody at once. `row_work` marks its rows, and purges it when its time is over.
///
/// # Errors
/// [`LifecycleError`].
pub async fn delete(cx: &OperatorCx, tenant: TenantId, reason: &str) -> Result<Tenant, LifecycleError> {
    cx.require(OperatorPermission::DeleteTenants)?;
    let purge_at = cx.app().policy.purge_at(cx.now());
    let delete = |tenant: &mut Tenant, change, now| tenant.delete(change, now, purge_at);
    change_and_record(
        cx,
        tenant,
        (OperatorPermission::DeleteTenants, "tenant.deleted"),
        reason,
        delete,
    )
    .await
}

/// Begins to restore a deleted tenant, which stays deleted until `row_work` has restored its rows.
///
/// # Errors
/// [`LifecycleError`].
pub async fn begin_restore(
    cx: &OperatorCx,
    tenant: TenantId,
    reason: &str,
) -> Result<Tenant, LifecycleError> {
    cx.require(OperatorPermission::RestoreTenants)?;
    change(
        cx,
        tenant,
        (OperatorPermission::RestoreTenants, "tenant.restore_begun"),
        reason,
        Tenant::restore,
    )
    .await
}

/// Begins to purge a deleted tenant: nothing leads back. `row_work` erases all of its rows.
///
/// # Errors
/// [`LifecycleError`].
pub async fn purge(cx: &OperatorCx, tenant: TenantId, reason: &str) -> Result<Tenant, LifecycleError> {
    cx.require(OperatorPermission::PurgeTenants)?;
    change(
        cx,
        tenant,
        (OperatorPermission::PurgeTenants, "tenant.purge_begun"),
        reason,
        Tenant::purge,
    )
    .await
}

/// Purges a tenant again that a restored backup has brought back, whatever its state is.
///
/// # Errors
/// [`LifecycleError`].
pub async fn purge_again(cx: &OperatorCx, tenant: TenantId) -> Result<Tenant, LifecycleError> {
    cx.require(OperatorPermission::PurgeTenants)?;
    let again = |tenant: &mut Tenant, change: StatusChange, now| {
        if tenant.status.allows(Capability::Read) {
            tenant.delete(change.clone(), now, now)?;
        }
        // A restoration that was under way in the backup is not continued.
        tenant.row_work = tenant.row_work.filter(|work| *work == RowWork::Purge);
        tenant.purge(change, now)
    };
    let reason = cx
        .reason()
        .unwrap_or("the tenant was purged, and a restored backup brought it back");
    change(
        cx,
        tenant,
        (OperatorPermission::PurgeTenants, "tenant.purge_begun"),
        reason,
        again,
    )
    .await
}

type Begun = (Box<dyn OperatorWork>, OperatorEvent, TenantStatus, Tenant);

/// Changes the state of a tenant in a transaction that its caller commits with the record. Returns the state before, too.
async fn begin_change(
    cx: &OperatorCx,
    id: TenantId,
    (permission, action): (OperatorPermission, &'static str),
    reason: &str,
    apply: impl FnOnce(&mut Tenant, StatusChange, Time) -> Result<(), InvalidTransition>,
) -> Result<Begun, LifecycleError> {
    let operator = cx.scope().operator();
    let actor = if operator.is_some() { "operator" } else { "system" };
    let status_change = StatusChange::by(actor, operator.map(OperatorId::uuid), reason)?;
    let mut work = cx.begin_as(permission).await?;
    let tenant = work.tenant_for_update(id).await?;
    let mut tenant = tenant.ok_or(LifecycleError::NotFound)?;
    let before = tenant.status;
    apply(&mut tenant, status_change, cx.now())?;
    work.update_lifecycle(&tenant).await?;
    let mut record = cx.record(action, Some(id), json!({"status": tenant.status}));
    record.reason = Some(reason.to_owned());
    Ok((work, record, before, tenant))
}

async fn change(
    cx: &OperatorCx,
    id: TenantId,
    (permission, action): (OperatorPermission, &'static str),
    reason: &str,
    apply: impl FnOnce(&mut Tenant, StatusChange, Time) -> Result<(), InvalidTransition>,
) -> Result<Tenant, LifecycleError> {
    let (work, record, _, tenant) = begin_change(cx, id, (permission, action), reason, apply).await?;
    work.commit(record).await?;
    Ok(tenant)
}

/// Does the same, and adds an entry to the tenant's own log just before the commit: no change is without an entry, and nothing leads
/// into a tenant that is deleted. Where the commit fails, another entry says so; a crash in between leaves an entry of a change that was
/// undone.
async fn change_and_record(
    cx: &OperatorCx,
    id: TenantId,
    (permission, action): (OperatorPermission, &'static str),
    reason: &str,
    apply: impl FnOnce(&mut Tenant, StatusChange, Time) -> Result<(), InvalidTransition>,
) -> Result<Tenant, LifecycleError> {
    let log = Log::of(cx, id).await;
    let (mut work, record, before, tenant) =
        begin_change(cx, id, (permission, action), reason, apply).await?;
    let log = log?;
    let object = json!({"status": tenant.status, "reason": reason});
    if let Some(event) = cx.tenant_event(action, (id, cx.scope().operator()), object) {
        work.emit(event).await?;
    }
    log.record(action, (before, tenant.status), reason).await?;
    log.commit(work, record, reason).await?;
    Ok(tenant)
}

const CHANGED: SystemScope = SystemScope::because("an operator changes the state of a tenant");

/// The audit log of the tenant. Its entry is another transaction, as another role, on behalf of the operator's request.
pub(crate) struct Log {
    cx: Cx,
    operator: Option<OperatorId>,
}

impl Log {
    /// That of a tenant that is not deleted.
    pub(crate) async fn of(cx: &OperatorCx, tenant: TenantId) -> Result<Self, LifecycleError> {
        Self::enter(cx, cx.app().ports.gate.system(CHANGED, tenant).await)
    }

    /// That of a tenant whose restoration ends, which is still deleted.
    pub(crate) async fn of_restored(cx: &OperatorCx, tenant: TenantId) -> Result<Self, LifecycleError> {
        Self::enter(cx, cx.app().ports.gate.restoring(CHANGED, tenant).await)
    }

    fn enter(cx: &OperatorCx, scope: Result<TenantScope, Denied>) -> Result<Self, LifecycleError> {
        let scope = scope.map_err(|denied| match denied {
            Denied::TenantNotFound => LifecycleError::NotFound,
            other => other.into(),
        })?;
        Ok(Self {
            cx: cx.inside(scope),
            operator: cx.scope().operator(),
        })
    }

    /// The same, of what an operator asked for and a job has done.
    pub(crate) fn asked_by(self, operator: Option<OperatorId>) -> Self {
        Self {
            cx: self.cx.by_operator(operator),
            operator,
        }
    }

    /// Adds an entry of a change from a state to another.
    pub(crate) async fn record(
        &self,
        action: &'static str,
        (before, after): (TenantStatus, TenantStatus),
        reason: &str,
    ) -> Result<(), LifecycleError> {
        let details = json!({"status": after, "reason": reason, "operator_id": self.operator});
        self.add(action, Some(json!({"status": before})), details).await
    }

    /// Commits a change whose entry is there. Where that fails, another entry says so.
    pub(crate) async fn commit(
        &self,
        work: Box<dyn OperatorWork>,
        record: OperatorEvent,
        reason: &str,
    ) -> Result<(), LifecycleError> {
        let action = record.action;
        let Err(error) = work.commit(record).await else {
            return Ok(());
        };
        if let Err(lost) = self.record_failure(action, reason).await {
            tracing::warn!(%lost, action, "the failure of a change is not in the log of its tenant");
        }
        Err(error.into())
    }

    /// Adds an entry of a change whose entry is there, and which failed.
    async fn record_failure(&self, action: &'static str, reason: &str) -> Result<(), LifecycleError> {
        let details = json!({"action": action, "reason": reason, "operator_id": self.operator});
        self.add("tenant.change_failed", None, details).await
    }

    async fn add(
        &self,
        action: &'static str,
        before: Option<Value>,
        after: Value,
    ) -> Result<(), LifecycleError> {
        let target = self.cx.scope().tenant().uuid();
        self.cx
            .write(async |work| {
                let mut event = self.cx.security(action, "tenant", Some(target), after.clone());
                event.before = before.clone();
                // The transaction of the change has stored it.
                event.event = None;
                work.audit().record(event).await
            })
            .await?;
        Ok(())
    }
}
