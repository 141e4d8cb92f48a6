//! Operators' access to tenants, as operators ask for it and use it.

use std::sync::Arc;

use serde_json::json;
use tenantry_domain::identity::SecurityNotice;
use tenantry_domain::kernel::{OperatorId, Page, PageRequest, SupportAccessId, SystemScope, TenantId};
use tenantry_domain::operations::{OperatorPermission, OperatorRole, PlatformSupportAccess, SupportFilter};
use tenantry_domain::tenant::{
    Denied, NewSupportAccess, Refused, SupportAccess, SupportClaims, SupportStatus, SupportTransition,
};

use crate::customization::product_settings::PREAPPROVE_SUPPORT_READ;
use crate::customization::setting;
use crate::identity::security_notice;
use crate::kernel::step_up::lock_tenant;
use crate::tenant::support_access::{SupportError, SupportReason, details, note};
use crate::{Cx, OperatorCx};

const BECAUSE: SystemScope = SystemScope::because("an operator asks for access to a tenant");

/// A token with which an operator acts in a tenant.
#[derive(Debug, Clone)]
pub struct SupportToken {
    /// The access token (JWT).
    pub access_token: String,
    /// How long it lives, in seconds.
    pub expires_in: i64,
    /// The access.
    pub granted: PlatformSupportAccess,
}

/// Asks the admins of a tenant for access. Where the security policy of the tenant allows it, a request to read is approved at once.
/// The admins get a mail in either case.
///
/// # Errors
/// [`SupportError`]; [`SupportReason::AlreadyOpen`] while another one of the operator to this tenant is open.
pub async fn request(
    cx: &OperatorCx,
    tenant: TenantId,
    new: NewSupportAccess,
) -> Result<PlatformSupportAccess, SupportError> {
    cx.require(OperatorPermission::UseSupportAccess)?;
    let operator = operator(cx)?;
    let found = cx.app().ports.operators.find(BECAUSE, operator).await?;
    let name = found.ok_or(Refused::Forbidden)?.full_name;
    let id = SupportAccessId::next(cx.app().ports.ids.as_ref());
    let mut access = SupportAccess::new(id, (operator, &name), new, cx.now())?;
    let inside = enter(cx, tenant).await?;
    if setting::find(&inside, &PREAPPROVE_SUPPORT_READ).await? == Some(true) {
        access.preapprove(cx.now());
    }
    let mut record = cx.record("support_access.requested", Some(tenant), details(&access));
    record.reason = Some(access.reason.clone());
    let stored = store(&inside, &access);
    cx.act(record, "support_access.request_failed", stored).await?;
    Ok(PlatformSupportAccess { tenant, access })
}

/// A page of the accesses to all tenants, newest first.
///
/// # Errors
/// [`SupportError`].
pub async fn list(
    cx: &OperatorCx,
    filter: &SupportFilter,
    page: PageRequest,
) -> Result<Page<PlatformSupportAccess>, SupportError> {
    cx.require(OperatorPermission::ReadSupportAccess)?;
    let mut work = cx.begin().await?;
    let found = work.support_accesses().list(filter, cx.now(), page).await?;
    let details = json!({"operator": filter.operator, "status": filter.status});
    work.commit(cx.record("support_accesses.listed", filter.tenant, details))
        .await?;
    Ok(found)
}

/// One access.
///
/// # Errors
/// [`SupportError`].
pub async fn get(cx: &OperatorCx, id: SupportAccessId) -> Result<PlatformSupportAccess, SupportError> {
    cx.require(OperatorPermission::ReadSupportAccess)?;
    let mut work = cx.begin().await?;
    let found = work.support_accesses().find(id).await?;
    let tenant = found.as_ref().map(|found| found.tenant);
    let details = json!({"support_access_id": id, "found": found.is_some()});
    work.commit(cx.record("support_access.read", tenant, details))
        .await?;
    found.ok_or(SupportError::NotFound)
}

/// Takes a request back, or gives an access up. Operators withdraw their own, and owners each.
///
/// # Errors
/// [`SupportError`].
pub async fn withdraw(cx: &OperatorCx, id: SupportAccessId) -> Result<PlatformSupportAccess, SupportError> {
    cx.require(OperatorPermission::UseSupportAccess)?;
    let mut found = find(cx, id).await?;
    let is_owner = |cx: &OperatorCx| {
        let session = cx.scope().session();
        session.is_none_or(|session| session.role == OperatorRole::Owner)
    };
    if cx.scope().operator() != Some(found.access.operator) && !is_owner(cx) {
        return Err(Refused::Forbidden.into());
    }
    found.access.withdraw(cx.now())?;
    let inside = enter(cx, found.tenant).await?;
    let record = cx.record(
        "support_access.withdrawn",
        Some(found.tenant),
        details(&found.access),
    );
    let withdrawn = inside.write(async |work| {
        let access = work.support_accesses().find_for_update(id).await?;
        let mut access = access.ok_or(SupportError::NotFound)?;
        access.withdraw(inside.now())?;
        work.support_accesses().update(&access).await?;
        note(&inside, work, "support_access.withdrawn", (id, details(&access))).await?;
        Ok::<_, SupportError>(access)
    });
    let access = cx
        .act(record, "support_access.withdrawal_failed", withdrawn)
        .await?;
    Ok(PlatformSupportAccess {
        tenant: found.tenant,
        access,
    })
}

/// Gives the operator a token for the tenant. It expires with the access, and each request asks whether the access is in force.
///
/// # Errors
/// [`SupportError`]; [`Refused::Forbidden`] for the access of another operator.
pub async fn token(cx: &OperatorCx, id: SupportAccessId) -> Result<SupportToken, SupportError> {
    cx.require(OperatorPermission::UseSupportAccess)?;
    let operator = operator(cx)?;
    let session = cx.scope().session().ok_or(Refused::Forbidden)?;
    let granted = find(cx, id).await?;
    if granted.access.operator != operator {
        return Err(Refused::Forbidden.into());
    }
    let status = granted.access.status_at(cx.now());
    let (SupportStatus::Active, Some(expires_at)) = (status, granted.access.expires_at) else {
        return Err(SupportTransition(status).into());
    };
    let inside = enter(cx, granted.tenant).await?;
    let record = cx.record(
        "support_access.token_issued",
        Some(granted.tenant),
        details(&granted.access),
    );
    cx.announce(record).await?;
    let logged = inside.write(async |work| {
        let details = details(&granted.access);
        note(&inside, work, "support_access.token_issued", (id, details)).await
    });
    logged.await?;
    let claims = SupportClaims {
        tenant: granted.tenant,
        access: id,
        operator,
        epoch: session.epoch,
        level: granted.access.access,
        issued_at: cx.now(),
        expires_at,
    };
    Ok(SupportToken {
        access_token: cx.app().ports.support_tokens.sign(&claims),
        expires_in: (expires_at - cx.now()).num_seconds(),
        granted,
    })
}

/// Stores a request, with the mails to the admins.
async fn store(inside: &Cx, access: &SupportAccess) -> Result<(), SupportError> {
    inside
        .write(async |work| {
            // Of two requests at once the second one sees the first.
            lock_tenant(work).await?;
            let open = work
                .support_accesses()
                .count_open(access.operator, access.created_at);
            if open.await? > 0 {
                return Err(SupportReason::AlreadyOpen.into());
            }
            work.support_accesses().insert(access).await?;
            let what = (access.id, details(access));
            note(inside, work, "support_access.requested", what).await?;
            if access.preapproved {
                let what = (access.id, details(access));
                note(inside, work, "support_access.approved", what).await?;
            }
            Ok(security_notice::notify_admins(inside, work, &notice(access)).await?)
        })
        .await
}

fn notice(access: &SupportAccess) -> SecurityNotice {
    SecurityNotice::SupportAccess {
        operator: access.operator_name.clone(),
        access: access.access.as_str().to_owned(),
        minutes: access.minutes,
        reason: access.reason.clone(),
        preapproved: access.preapproved,
    }
}

fn operator(cx: &OperatorCx) -> Result<OperatorId, Refused> {
    cx.scope().operator().ok_or(Refused::Forbidden)
}

async fn find(cx: &OperatorCx, id: SupportAccessId) -> Result<PlatformSupportAccess, SupportError> {
    let mut work = cx.begin().await?;
    let found = work.support_accesses().find(id).await?;
    found.ok_or(SupportError::NotFound)
}

/// The context of the system in the tenant, whose log names the operator.
async fn enter(cx: &OperatorCx, tenant: TenantId) -> Result<Cx, SupportError> {
    let scope = cx.app().ports.gate.system(BECAUSE, tenant).await;
    let scope = scope.map_err(|denied| match denied {
        Denied::TenantNotFound => SupportError::NotFound,
        other => other.into(),
    })?;
    let inside = Cx::new(Arc::clone(cx.app()), scope, cx.origin().clone());
    Ok(inside.by_operator(cx.scope().operator()))
}
