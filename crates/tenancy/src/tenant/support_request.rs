//! Operators' access to tenants, as operators ask for it and use it.

use std::sync::Arc;

use serde_json::json;
use tenantry_domain::identity::SecurityNotice;
use tenantry_domain::kernel::{OperatorId, Page, PageRequest, SupportAccessId, SystemScope, TenantId};
use tenantry_domain::operations::{
    Operator, OperatorPermission, OperatorRole, OperatorSession, PlatformSupportAccess, SupportFilter,
};
use tenantry_domain::tenant::{
    Denied, NewSupportAccess, Refused, SupportAccess, SupportClaims, SupportStatus, SupportTransition,
};

use crate::customization::product_settings::PREAPPROVE_SUPPORT_READ;
use crate::customization::setting;
use crate::identity::security_notice;
use crate::kernel::step_up::lock_tenant;
use crate::tenant::support_access::{SupportError, SupportReason, note};
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
/// The admins get a mail in either case, up to [`SecurityNotice::MOST_OF_OPERATOR`] a day about an operator; then it waits for an admin.
///
/// # Errors
/// [`SupportError`]; [`SupportReason::AlreadyOpen`] while another one of the operator to this tenant is open.
pub async fn request(
    cx: &OperatorCx,
    tenant: TenantId,
    new: NewSupportAccess,
) -> Result<PlatformSupportAccess, SupportError> {
    cx.require(OperatorPermission::UseSupportAccess)?;
    let (operator, session) = operator(cx)?;
    let found = cx.app().ports.operators.find(BECAUSE, operator).await?;
    let is_acting = |found: &Operator| {
        let is_same = found.is_active && found.epoch == session.epoch;
        is_same && found.role.has(OperatorPermission::UseSupportAccess)
    };
    // As stored now: the operator may have sent the request slowly.
    let name = found.filter(is_acting).ok_or(Refused::Forbidden)?.full_name;
    let id = SupportAccessId::next(cx.app().ports.ids.as_ref());
    let access = SupportAccess::new(id, (operator, &name, session.epoch), new, cx.now())?;
    let inside = enter(cx, tenant).await?;
    let preapproves = setting::find(&inside, &PREAPPROVE_SUPPORT_READ).await? == Some(true);
    let mut details = access.details();
    details["policy_preapproves"] = json!(preapproves);
    let mut record = cx.record("support_access.requested", Some(tenant), details);
    record.reason = Some(access.reason.clone());
    let stored = store(&inside, &access, preapproves);
    let access = cx.act(record, "support_access.request_failed", stored).await?;
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
        found.access.details(),
    );
    let withdrawn = inside.write(async |work| {
        let access = work.support_accesses().find_for_update(id).await?;
        let mut access = access.ok_or(SupportError::NotFound)?;
        access.withdraw(inside.now())?;
        work.support_accesses().update(&access).await?;
        note(&inside, work, "support_access.withdrawn", (id, access.details())).await?;
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
    let (operator, session) = operator(cx)?;
    let granted = find(cx, id).await?;
    if granted.access.operator != operator {
        return Err(Refused::Forbidden.into());
    }
    let asked = granted.access.operator_epoch;
    if asked.is_some_and(|epoch| epoch != session.epoch) {
        return Err(SupportTransition(SupportStatus::Ended).into());
    }
    let status = granted.access.status_at(cx.now());
    let (SupportStatus::Active, Some(expires_at)) = (status, granted.access.expires_at) else {
        return Err(SupportTransition(status).into());
    };
    let inside = enter(cx, granted.tenant).await?;
    let record = cx.record(
        "support_access.token_issued",
        Some(granted.tenant),
        granted.access.details(),
    );
    cx.announce(record).await?;
    let logged = inside.write(async |work| {
        note(
            &inside,
            work,
            "support_access.token_issued",
            (id, granted.access.details()),
        )
        .await
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

/// Stores a request, with the mails to the admins. A request that the policy approves waits for an admin where their mails are used up: only
/// an access that is announced is one that the tenant has agreed to.
async fn store(inside: &Cx, asked: &SupportAccess, preapproves: bool) -> Result<SupportAccess, SupportError> {
    inside
        .write(async |work| {
            // Of two requests at once the second one sees the first.
            lock_tenant(work).await?;
            let open = work
                .support_accesses()
                .count_open(asked.operator, asked.created_at);
            if open.await? > 0 {
                return Err(SupportReason::AlreadyOpen.into());
            }
            let mut access = asked.clone();
            // The policy as stored now: it may have changed since the cached one was read.
            if preapproves
                && setting::find_stored(inside, work, &PREAPPROVE_SUPPORT_READ).await? == Some(true)
            {
                access.preapprove(inside.now());
            }
            let is_announced = security_notice::announce(inside, work, &notice(&access)).await?;
            if access.preapproved && !is_announced {
                access = asked.clone();
                let _: bool = security_notice::announce(inside, work, &notice(&access)).await?;
            }
            work.support_accesses().insert(&access).await?;
            let what = (access.id, access.details());
            note(inside, work, "support_access.requested", what).await?;
            if access.preapproved {
                let what = (access.id, access.details());
                note(inside, work, "support_access.approved", what).await?;
            }
            Ok(access)
        })
        .await
}

fn notice(access: &SupportAccess) -> SecurityNotice {
    SecurityNotice::SupportAccess {
        operator_id: Some(access.operator),
        operator: access.operator_name.clone(),
        access: access.access.as_str().to_owned(),
        minutes: access.minutes,
        reason: access.reason.clone(),
        preapproved: access.preapproved,
    }
}

fn operator(cx: &OperatorCx) -> Result<(OperatorId, OperatorSession), Refused> {
    let scope = cx.scope();
    let acting = scope.operator().zip(scope.session().copied());
    acting.ok_or(Refused::Forbidden)
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
