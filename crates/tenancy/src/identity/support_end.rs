//! Ends of operators' accesses that no admin decides: the account of the operator changes, or the admin who has approved an access stops
//! being one.
//!
//! An access ends in the transaction of the change. That of an operator's account reaches all tenants and no tenant's log, so it marks the
//! accesses, and the entries are added afterwards in the scope of each tenant: at once, or by the daily upkeep where that fails.

use serde_json::json;
use tenantry_domain::kernel::{OperatorId, StoreError, SystemScope, TenantId, Time, UserId};
use tenantry_domain::operations::OperatorWork;
use tenantry_domain::store::Work;
use tenantry_domain::tenant::{Denied, SupportAccess, SupportEnd};

use crate::{Cx, OperatorCx};

const BECAUSE: SystemScope = SystemScope::because("the log of a tenant gets the end of an operator's access");

/// So many accesses are deleted in a transaction, with the record of what was done with each.
const BATCH: u32 = 50;

/// Tenants in which accesses of an operator have ended, and whose logs have no entry of it yet.
#[derive(Debug)]
#[must_use = "the tenants get an entry after the commit"]
pub(crate) struct EndedAccesses(Vec<TenantId>);

/// Ends the open accesses of an operator in the transaction that changes the account.
pub(crate) async fn of_operator(
    cx: &OperatorCx,
    work: &mut dyn OperatorWork,
    operator: OperatorId,
) -> Result<EndedAccesses, StoreError> {
    let tenants = work.support_accesses().end_of(operator, cx.now()).await?;
    Ok(EndedAccesses(tenants))
}

impl EndedAccesses {
    /// None, where the change ends no access.
    pub(crate) const NONE: Self = Self(Vec::new());

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Adds the entries to the logs of the tenants, after the commit. The change stands where that fails, and the upkeep adds them.
    pub(crate) async fn log(self, cx: &OperatorCx) {
        for tenant in self.0 {
            if let Err(error) = log_in(cx, tenant).await {
                tracing::warn!(%error, %tenant, "the end of a support access is logged by the upkeep");
            }
        }
    }
}

async fn log_in(cx: &OperatorCx, tenant: TenantId) -> Result<(), StoreError> {
    match cx.app().ports.gate.system(BECAUSE, tenant).await {
        Ok(scope) => settle(&cx.inside(scope)).await,
        Err(Denied::TenantGone | Denied::TenantNotFound) => Ok(()),
        Err(Denied::Store(error)) => Err(error),
        Err(denied) => Err(StoreError::Other(denied.to_string())),
    }
}

/// Adds the entries of accesses that have ended with their operator's account, and ends those whose approver is no admin any more.
pub(crate) async fn settle(cx: &Cx) -> Result<(), StoreError> {
    cx.write(async |work| {
        for access in work.support_accesses().take_unlogged_ends().await? {
            note(cx, work, &access, SupportEnd::OperatorChanged).await?;
        }
        of_approver(cx, work, None).await
    })
    .await
}

/// Ends the accesses that `leaving` has approved, who stops being an admin in the running transaction, and any whose approver has.
pub(crate) async fn of_approver(cx: &Cx, work: &mut Work, leaving: Option<UserId>) -> Result<(), StoreError> {
    let accesses = work.support_accesses();
    for access in accesses.end_without_approver(leaving, cx.now()).await? {
        note(cx, work, &access, SupportEnd::ApproverLeft).await?;
    }
    Ok(())
}

/// Deletes accesses that were asked for before a time, which is long ago, and the record of what was done with them.
pub(crate) async fn delete_before(cx: &Cx, time: Time) -> Result<(), StoreError> {
    loop {
        let deleted = cx.write(async |work| work.support_accesses().delete_before(time, BATCH).await);
        if deleted.await? < u64::from(BATCH) {
            return Ok(());
        }
    }
}

async fn note(cx: &Cx, work: &mut Work, access: &SupportAccess, why: SupportEnd) -> Result<(), StoreError> {
    let mut details = access.details();
    details["because"] = json!(why);
    let id = Some(access.id.uuid());
    let event = cx.security("support_access.ended", "support_access", id, details);
    work.audit().record(event).await
}
