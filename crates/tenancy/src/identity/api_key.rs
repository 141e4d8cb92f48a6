//! Keys with which programs call the API.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;
use tenantry_domain::identity::{
    ApiKey, ApiKeyPatch, IssuedApiKey, KeyRefusal, NewApiKey, PresentedApiKey, SecurityNotice,
};
use tenantry_domain::kernel::{ApiKeyId, Page, PageRequest, Permission, RequestId, StoreError};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::{Admission, Denied, Refused, TenantSelector};

use crate::audit::refusal::{self, Refusal, RefusedAction};
use crate::identity::security_notice;
use crate::kernel::step_up::{ActingAdmin, RecentFactor, require_held};
use crate::{Changed, Cx, Origin, OwnReason, Precondition, Tenancy, UseCaseError};

/// Errors of the use cases of API keys. A revoked key is not found.
pub type ApiKeyError = UseCaseError<ApiKeyReason>;

/// Why an API key is not created or rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyReason {
    /// The tenant has [`ApiKey::MOST`] keys.
    #[error("the tenant has {} API keys, which is the maximum", ApiKey::MOST)]
    TooMany,
    /// The key rotates itself with a secret that a rotation replaced.
    #[error("the secret of the API key was replaced")]
    FormerSecret,
    /// The key is personal, and another user's: a rotation shows its secret.
    #[error("the API key belongs to another user")]
    OfAnother,
    /// An expired key is not rotated.
    #[error("the API key has expired")]
    Expired,
}

impl OwnReason for ApiKeyReason {}

/// A key with its text, which is shown this once.
#[derive(Debug, Clone)]
pub struct Issued {
    /// What is stored of the key.
    pub key: ApiKey,
    /// Its text.
    pub issued: IssuedApiKey,
}

/// Returns a page of the tenant's keys that are not revoked, newest first.
///
/// # Errors
/// [`ApiKeyError`].
pub async fn list(cx: &Cx, page: PageRequest) -> Result<Page<ApiKey>, ApiKeyError> {
    cx.require(Permission::ReadApiKeys)?;
    cx.read(async |work| Ok(work.api_keys().list(page).await?)).await
}

/// Returns one key.
///
/// # Errors
/// [`ApiKeyError`].
pub async fn get(cx: &Cx, id: ApiKeyId) -> Result<ApiKey, ApiKeyError> {
    cx.require(Permission::ReadApiKeys)?;
    cx.read(async |work| work.api_keys().find(id).await?.ok_or(ApiKeyError::NotFound))
        .await
}

/// Creates a key. Its scopes are among the permissions of its creator.
///
/// # Errors
/// [`ApiKeyError`].
pub async fn create(cx: &Cx, new: NewApiKey) -> Result<Issued, ApiKeyError> {
    cx.require(Permission::ManageApiKeys)?;
    let creator = cx.scope().user().ok_or(Refused::Forbidden)?;
    let factor = cx.require_recent_factor().await??;
    let id = ApiKeyId::next(cx.ids());
    let issued = issue(cx, id, factor);
    let new = (new, cx.ports().permissions.as_ref());
    let key = ApiKey::new(id, creator, issued.secret_hash, new, cx.now())?;
    require_held(cx, &key.scopes)?;
    // Two requests for the last place come one after the other.
    cx.write_as_admin(async |work, _| {
        if work.api_keys().count().await? >= ApiKey::MOST {
            return Err(ApiKeyReason::TooMany.into());
        }
        work.api_keys().insert(&key).await?;
        cx.record(work, Changed::created(&key)).await?;
        let name = key.name.clone();
        security_notice::notify(cx, work, creator, SecurityNotice::ApiKeyCreated { name }).await?;
        Ok(Issued { key, issued })
    })
    .await
}

/// Changes a key. New scopes are among the permissions of whoever changes it.
///
/// # Errors
/// [`ApiKeyError`].
pub async fn update(
    cx: &Cx,
    id: ApiKeyId,
    when: &Precondition,
    patch: ApiKeyPatch,
) -> Result<ApiKey, ApiKeyError> {
    cx.require(Permission::ManageApiKeys)?;
    let factor = cx.require_recent_factor().await??;
    cx.write_as_admin(async |work, admin| {
        let before = work.api_keys().find_for_update(id).await?;
        let before = before.ok_or(ApiKeyError::NotFound)?;
        when.check(before.version)?;
        let mut key = before.clone();
        key.apply(patch.clone(), &cx.ports().permissions, cx.now())?;
        if key.scopes != before.scopes {
            require_held(cx, &key.scopes)?;
        }
        store(cx, work, ("api_key.updated", &before, &key), (admin, factor)).await?;
        Ok(key)
    })
    .await
}

/// Revokes a key: it is refused from now on here, and within a second on every other server.
///
/// # Errors
/// [`ApiKeyError`].
pub async fn revoke(cx: &Cx, id: ApiKeyId, when: &Precondition) -> Result<(), ApiKeyError> {
    cx.require(Permission::RevokeApiKeys)?;
    cx.write_as_admin(async |work, _| {
        let before = work.api_keys().find_for_update(id).await?;
        let before = before.ok_or(ApiKeyError::NotFound)?;
        when.check(before.version)?;
        let mut key = before.clone();
        key.revoke(cx.now());
        work.api_keys().update(&key).await?;
        work.api_keys().keep_latest_revoked(ApiKey::MOST_REVOKED).await?;
        Ok(cx
            .record(work, Changed::ended("api_key.revoked", &before))
            .await?)
    })
    .await
}

/// Gives a key a new secret. The present one is accepted for so many seconds more. A key may do this only for itself, only
/// when it is a service account's, and only with its present secret: a former one, which may have leaked, must not take
/// the key over. The admins are notified of a key that rotates itself. A personal key is rotated by its creator alone, since it acts as
/// the creator, also after an admin who knows its secret was removed; other admins revoke it. The creator of a service account is
/// notified of each rotation by another admin.
///
/// # Errors
/// [`ApiKeyReason::FormerSecret`], [`ApiKeyReason::OfAnother`]; [`ApiKeyError`].
pub async fn rotate(cx: &Cx, id: ApiKeyId, overlap_seconds: i64) -> Result<Issued, ApiKeyError> {
    cx.require(Permission::RotateApiKeys)?;
    if cx.scope().api_key().is_some_and(|own| own != id) {
        return Err(Refused::Forbidden.into());
    }
    let factor = cx.require_recent_factor().await??;
    let issued = issue(cx, id, factor);
    let rotated = cx.write_as_admin(async |work, admin| {
        let before = work.api_keys().find_for_update(id).await?;
        let before = before.ok_or(ApiKeyError::NotFound)?;
        let presented = cx.scope().key_secret();
        if presented.is_some_and(|presented| !before.is_present_secret(presented)) {
            return Err(ApiKeyReason::FormerSecret.into());
        }
        if !before.service_account && cx.scope().user() != Some(before.creator) {
            return Err(ApiKeyReason::OfAnother.into());
        }
        if before.is_expired(cx.now()) {
            return Err(ApiKeyReason::Expired.into());
        }
        let mut key = before.clone();
        key.rotate(issued.secret_hash, overlap_seconds, cx.now())?;
        store(cx, work, ("api_key.rotated", &before, &key), (admin, factor)).await?;
        notify_of_rotation(cx, work, &key).await?;
        Ok(Issued { key, issued })
    });
    let rotated = rotated.await;
    if let Err(ApiKeyError::Own(ApiKeyReason::FormerSecret)) = &rotated {
        refusal::record(&cx.without_key(), refused(id, "former_secret", cx.origin())).await?;
    }
    rotated
}

/// Admits a program with a key, and notes that the key was used. A refusal is recorded with its reason in the audit log of
/// the tenant that the key names, where there is one.
///
/// # Errors
/// [`Denied`]; of a refused key [`Denied::ApiKey`].
pub async fn admit(
    app: &Arc<Tenancy>,
    presented: &PresentedApiKey,
    origin: &Origin,
    request: RequestId,
) -> Result<Admission, Denied> {
    let now = app.ports.clock.now();
    let gate = &app.ports.gate;
    let outcome = gate
        .api_key(presented, origin.address(), now, request.clone())
        .await;
    match &outcome {
        Ok(_) => {
            let uses = app.key_uses();
            uses.note(presented.tenant, presented.id, now);
            uses.note_network(presented.tenant, presented.id, origin.address());
        }
        Err(Denied::ApiKey(reason)) => record_refusal(app, presented, *reason, origin, request).await?,
        Err(_) => {}
    }
    outcome
}

async fn record_refusal(
    app: &Arc<Tenancy>,
    presented: &PresentedApiKey,
    reason: KeyRefusal,
    origin: &Origin,
    request: RequestId,
) -> Result<(), Denied> {
    let selector = TenantSelector::Id(presented.tenant);
    let admission = match app.ports.gate.guest(&selector, request).await {
        Ok(admission) => admission,
        Err(Denied::Store(error)) => return Err(error.into()),
        // There is no tenant in whose log it could be.
        Err(_) => return Ok(()),
    };
    let cx = Cx::new(Arc::clone(app), admission.scope, origin.clone());
    Ok(refusal::record(&cx, refused(presented.id, &reason.to_string(), origin)).await?)
}

/// Notifies the user who rotated a key and its creator; the admins, when it rotated itself.
async fn notify_of_rotation(cx: &Cx, work: &mut Work, key: &ApiKey) -> Result<(), StoreError> {
    let name = key.name.clone();
    let Some(user) = cx.scope().session().and(cx.scope().user()) else {
        let notice = SecurityNotice::ApiKeyRotatedItself { name };
        return security_notice::notify_admins(cx, work, &notice).await;
    };
    for recipient in BTreeSet::from([user, key.creator]) {
        let name = name.clone();
        security_notice::notify(cx, work, recipient, SecurityNotice::ApiKeyRotated { name }).await?;
    }
    Ok(())
}

/// The audit entry of a key that was refused.
fn refused(id: ApiKeyId, reason: &str, origin: &Origin) -> Refusal {
    Refusal {
        action: RefusedAction::ApiKey,
        target_type: "api_key",
        target: Some(id.uuid()),
        actor: None,
        ip: origin.ip.clone(),
        details: json!({"reason": reason}),
    }
}

/// Stores a key that was changed, with the audit entry of the change.
async fn store(
    cx: &Cx,
    work: &mut Work,
    (action, before, after): (&'static str, &ApiKey, &ApiKey),
    _: (ActingAdmin, RecentFactor),
) -> Result<(), ApiKeyError> {
    work.api_keys().update(after).await?;
    let event = cx.changed(action, "api_key", after.id.uuid(), Some(before), Some(after));
    Ok(work.audit().record(event).await?)
}

fn issue(cx: &Cx, id: ApiKeyId, _: RecentFactor) -> IssuedApiKey {
    let secret = cx.ports().secrets.secret();
    cx.app().policy.api_keys.issue(cx.scope().tenant(), id, secret)
}
