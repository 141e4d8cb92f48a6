//! What deliveries need of an endpoint, and what their outcomes mean for it.

use tenantry_domain::kernel::{Seal as _, StoreError, Time, WebhookEndpointId};
use tenantry_domain::store::Work;
use tenantry_domain::webhooks::{
    DeliveryOutcome, DisablingRule, EndpointCredentials, EndpointStep, WebhookEndpoint,
};

use crate::customization::setting::Resealed;
use crate::{Changed, Cx};

/// Returns what the messages of an endpoint are signed and sent with; `None` when no known key opens it.
///
/// # Errors
/// Those of the store.
pub async fn credentials(
    cx: &Cx,
    work: &mut Work,
    endpoint: &WebhookEndpoint,
) -> Result<Option<EndpointCredentials>, StoreError> {
    let sealed = &endpoint.sealed_credentials;
    let seal = cx.seal_opening(work, sealed).await?;
    let tenant = cx.scope().tenant();
    Ok(EndpointCredentials::open(
        tenant,
        endpoint.id,
        sealed,
        seal.as_ref(),
    ))
}

/// Stores what an attempt that was made at a time means for its endpoint: its failures, or that it is disabled. Returns the endpoint when
/// this attempt has disabled it. An endpoint that is disabled or deleted stays so.
///
/// A success of an endpoint without failures, which is the usual case, locks and writes nothing.
///
/// # Errors
/// Those of the store.
pub async fn settle(
    cx: &Cx,
    work: &mut Work,
    id: WebhookEndpointId,
    (outcome, at): (&DeliveryOutcome, Time),
    rule: &DisablingRule,
) -> Result<Option<WebhookEndpoint>, StoreError> {
    let seen = work.webhook_endpoints().find(id).await?;
    let changes = |seen: &WebhookEndpoint| {
        seen.state.is_enabled() && rule.after(seen.streak, outcome, at) != EndpointStep::Keep(seen.streak)
    };
    if !seen.as_ref().is_some_and(changes) {
        return Ok(None);
    }
    let found = work.webhook_endpoints().find_for_update(id).await?;
    let Some(before) = found.filter(|found| found.state.is_enabled()) else {
        return Ok(None);
    };
    match rule.after(before.streak, outcome, at) {
        EndpointStep::Keep(streak) => {
            work.webhook_endpoints().store_streak(id, streak).await?;
            Ok(None)
        }
        EndpointStep::Disable(reason) => {
            let mut endpoint = before.clone();
            endpoint.disable(reason, cx.now());
            work.webhook_endpoints().update(&endpoint).await?;
            let changed = Changed::with("webhook_endpoint.disabled", Some(&before), &endpoint);
            cx.record(work, changed).await?;
            Ok(Some(endpoint))
        }
    }
}

/// Seals the credentials of all endpoints anew under the newest data key.
pub(crate) async fn reseal(cx: &Cx, work: &mut Work, done: &mut Resealed) -> Result<(), StoreError> {
    let (seal, tenant) = (cx.load_seal(work).await?, cx.scope().tenant());
    for endpoint in work.webhook_endpoints().all().await? {
        let place = EndpointCredentials::place(tenant, endpoint.id);
        if seal.is_current(&place, &endpoint.sealed_credentials) {
            done.current += 1;
            continue;
        }
        // An admin may have changed it meanwhile.
        let Some(endpoint) = work.webhook_endpoints().find_for_update(endpoint.id).await? else {
            continue;
        };
        match seal.open(&place, &endpoint.sealed_credentials) {
            Some(plain) => {
                let sealed = seal.seal(&place, &plain);
                work.webhook_endpoints().reseal(endpoint.id, &sealed).await?;
                done.resealed += 1;
            }
            None => done.unreadable.push(format!("webhook endpoint {}", endpoint.id)),
        }
    }
    Ok(())
}

/// Returns the endpoints whose credentials no known key opens.
pub(crate) async fn unreadable(cx: &Cx, work: &mut Work) -> Result<Vec<WebhookEndpointId>, StoreError> {
    let (seal, tenant) = (cx.load_seal(work).await?, cx.scope().tenant());
    let endpoints = work.webhook_endpoints().all().await?;
    let lost = endpoints.into_iter().filter(|endpoint| {
        let place = EndpointCredentials::place(tenant, endpoint.id);
        seal.open(&place, &endpoint.sealed_credentials).is_none()
    });
    Ok(lost.map(|endpoint| endpoint.id).collect())
}
