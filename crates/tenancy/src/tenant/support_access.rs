//! Operators' access to the tenant, as its admins decide about it and see what was done with it.

use std::sync::Arc;

use serde_json::{Value, json};
use tenantry_domain::kernel::{
    Page, PageRequest, Permission, RequestId, StoreError, SupportAccessId, SupportUseId, SystemScope, UserId,
};
use tenantry_domain::operations::OperatorEvent;
use tenantry_domain::store::Work;
use tenantry_domain::tenant::{
    Refused, SupportAccess, SupportStatus, SupportTransition, SupportUse, TenantScope,
};

use crate::kernel::step_up::RecentFactor;
use crate::{Cx, OperatorCx, Origin, OwnReason, Tenancy, UseCaseError};

/// Errors of the use cases of support access.
pub type SupportError = UseCaseError<SupportReason>;

/// Why a support access stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SupportReason {
    /// Its state does not allow it.
    #[error(transparent)]
    Transition(#[from] SupportTransition),
    /// The operator has an access to the tenant already, or waits for one.
    #[error("the operator has an open support access to the tenant")]
    AlreadyOpen,
}

impl OwnReason for SupportReason {}

impl From<SupportTransition> for SupportError {
    fn from(refused: SupportTransition) -> Self {
        SupportReason::from(refused).into()
    }
}

const BECAUSE: SystemScope = SystemScope::because("an admin decides about an operator's access");

/// The most characters of what a path names, in the record of a request.
const LONGEST_ENTITY: usize = 200;

/// The most operations and entities that are recorded of an access, each for itself: a path can have any id in it. Requests at once may
/// exceed it by their number.
pub const MOST_USES: u32 = 1_000;

/// The operation and the entity of requests beyond.
const FURTHER: (&str, &str) = ("further", "");

/// A page of the accesses, newest first.
///
/// # Errors
/// [`SupportError`].
pub async fn list(
    cx: &Cx,
    status: Option<SupportStatus>,
    page: PageRequest,
) -> Result<Page<SupportAccess>, SupportError> {
    cx.require(Permission::ReadSupportAccess)?;
    let now = cx.now();
    cx.read(async |work| Ok(work.support_accesses().list(status, now, page).await?))
        .await
}

/// One access.
///
/// # Errors
/// [`SupportError`].
pub async fn get(cx: &Cx, id: SupportAccessId) -> Result<SupportAccess, SupportError> {
    cx.require(Permission::ReadSupportAccess)?;
    find(cx, id).await
}

/// A page of what was asked for with an access, the newest kinds of requests first.
///
/// # Errors
/// [`SupportError`].
pub async fn uses(cx: &Cx, id: SupportAccessId, page: PageRequest) -> Result<Page<SupportUse>, SupportError> {
    cx.require(Permission::ReadSupportAccess)?;
    find(cx, id).await?;
    cx.read(async |work| Ok(work.support_accesses().uses(id, page).await?))
        .await
}

/// Approves a request: its minutes begin.
///
/// # Errors
/// [`SupportError`]; [`Refused::FactorRequired`] without a recent second factor.
pub async fn approve(cx: &Cx, id: SupportAccessId) -> Result<SupportAccess, SupportError> {
    cx.require(Permission::ManageSupportAccess)?;
    let factor = cx.require_recent_factor().await??;
    let by = user(cx)?;
    decide(cx, id, Decision::Approve(by, factor)).await
}

/// Denies a request.
///
/// # Errors
/// [`SupportError`].
pub async fn deny(cx: &Cx, id: SupportAccessId) -> Result<SupportAccess, SupportError> {
    cx.require(Permission::ManageSupportAccess)?;
    let by = user(cx)?;
    decide(cx, id, Decision::Deny(by)).await
}

/// Ends an access: the operator's next request is refused.
///
/// # Errors
/// [`SupportError`].
pub async fn end(cx: &Cx, id: SupportAccessId) -> Result<SupportAccess, SupportError> {
    cx.require(Permission::ManageSupportAccess)?;
    decide(cx, id, Decision::End).await
}

/// Counts a request of an operator before it is done or refused. The first of each operation and entity is an entry of the audit log. An
/// access has at most [`MOST_USES`] of them; requests beyond are counted together. A scope of anybody else is left alone.
///
/// # Errors
/// Those of the store; then the request must not be done.
pub async fn note_use(
    app: &Arc<Tenancy>,
    scope: &TenantScope,
    origin: &Origin,
    (operation, entity): (&str, &str),
) -> Result<(), StoreError> {
    let Some(access) = scope.support_access() else {
        return Ok(());
    };
    let cx = Cx::new(Arc::clone(app), scope.clone(), origin.clone());
    let entity: String = entity
        .chars()
        .filter(|c| !c.is_control())
        .take(LONGEST_ENTITY)
        .collect();
    let id = SupportUseId::next(cx.ids());
    let (cx, entity) = (&cx, entity.as_str());
    cx.write(async |work| {
        let uses = work.support_accesses();
        let has_room = uses
            .has_room_for_use(access, (operation, entity), MOST_USES)
            .await?;
        let what = if has_room { (operation, entity) } else { FURTHER };
        if uses.count_use(access, id, what, cx.now()).await? {
            let (operation, entity) = what;
            let details = json!({"operation": operation, "entity": entity});
            note(cx, work, "support_access.used", (access, details)).await?;
        }
        Ok(())
    })
    .await
}

/// Adds an entry about an access to the audit log of the tenant.
pub(crate) async fn note(
    cx: &Cx,
    work: &mut Work,
    action: &'static str,
    (access, details): (SupportAccessId, Value),
) -> Result<(), StoreError> {
    let event = cx.security(action, "support_access", Some(access.uuid()), details);
    work.audit().record(event).await
}

/// What an admin decides.
#[derive(Clone, Copy)]
enum Decision {
    /// It takes the proof, so that none is forgotten.
    Approve(UserId, RecentFactor),
    Deny(UserId),
    End,
}

impl Decision {
    const fn action(self) -> &'static str {
        match self {
            Self::Approve(..) => "support_access.approved",
            Self::Deny(_) => "support_access.denied",
            Self::End => "support_access.ended",
        }
    }

    const fn failed(self) -> &'static str {
        match self {
            Self::Approve(..) => "support_access.approval_failed",
            Self::Deny(_) => "support_access.denial_failed",
            Self::End => "support_access.end_failed",
        }
    }

    fn apply(self, cx: &Cx, access: &mut SupportAccess) -> Result<(), SupportTransition> {
        match self {
            Self::Approve(by, RecentFactor { .. }) => access.approve(by, cx.now()),
            Self::Deny(by) => access.deny(by, cx.now()),
            Self::End => access.end(cx.now()),
        }
    }
}

/// The record of the operators comes first, as for what operators do themselves; so what cannot be decided is found out before, and
/// leaves nothing there.
async fn decide(cx: &Cx, id: SupportAccessId, decision: Decision) -> Result<SupportAccess, SupportError> {
    let mut seen = find(cx, id).await?;
    decision.apply(cx, &mut seen)?;
    let operators = operators(cx);
    let record = record(cx, &operators, decision.action(), &seen);
    let decided = cx.write_as_admin(async |work, _| {
        let found = work.support_accesses().find_for_update(id).await?;
        let mut access = found.ok_or(SupportError::NotFound)?;
        decision.apply(cx, &mut access)?;
        work.support_accesses().update(&access).await?;
        note(cx, work, decision.action(), (id, access.details())).await?;
        Ok(access)
    });
    operators.act(record, decision.failed(), decided).await
}

/// The context for the log of operators, on behalf of the admin's request.
fn operators(cx: &Cx) -> OperatorCx {
    let request: RequestId = cx.scope().request().clone();
    let scope = cx.ports().operator_gate.system(BECAUSE, request);
    OperatorCx::new(Arc::clone(cx.shared_app()), scope, cx.origin().clone())
}

/// It names the admin, whose address is the tenant's alone.
fn record(cx: &Cx, operators: &OperatorCx, action: &'static str, access: &SupportAccess) -> OperatorEvent {
    let mut details = access.details();
    details["user_id"] = json!(cx.scope().user());
    let mut record = operators.record(action, Some(cx.scope().tenant()), details);
    record.ip = None;
    record
}

fn user(cx: &Cx) -> Result<UserId, Refused> {
    cx.scope().user().ok_or(Refused::Forbidden)
}

async fn find(cx: &Cx, id: SupportAccessId) -> Result<SupportAccess, SupportError> {
    let found = cx
        .read(async |work| Ok::<_, SupportError>(work.support_accesses().find(id).await?))
        .await?;
    found.ok_or(SupportError::NotFound)
}
