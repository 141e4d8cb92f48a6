//! Endpoints: where webhooks of a tenant are sent.

use std::time::Duration;

use tenantry_domain::events::EventTypes;
use tenantry_domain::kernel::{Invalid, Page, PageRequest, Permission, StoreError, WebhookEndpointId};
use tenantry_domain::store::Work;
use tenantry_domain::webhooks::{
    EndpointCredentials, EndpointSecrets, EventPattern, EventType, NewSecret, NewWebhookEndpoint,
    SecretError, SignatureKind, SigningSecret, WebhookEndpoint, WebhookEndpointPatch,
};

use crate::kernel::step_up::RecentFactor;
use crate::plans::Countable;
use crate::webhooks::{acting, delivery, delivery_state, removal};
use crate::{Changed, Cx, OwnReason, Precondition, UseCaseError, audited};

audited!(WebhookEndpoint, "webhook_endpoint");

/// For how long the former secret signs as well after a rotation that does not say it, in seconds: a day.
pub const DEFAULT_GRACE_SECONDS: i64 = 86_400;

/// Errors of the use cases of endpoints.
pub type WebhookEndpointError = UseCaseError<WebhookEndpointReason>;

/// Why an endpoint is not created or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebhookEndpointReason {
    /// The tenant has [`WebhookEndpoint::MOST`] endpoints.
    #[error(
        "the tenant has {} webhook endpoints, which is the maximum",
        WebhookEndpoint::MOST
    )]
    TooMany,
    /// No known key opens the secrets of the endpoint.
    #[error("the secrets of the webhook endpoint cannot be opened: delete it and create another")]
    Unreadable,
}

impl OwnReason for WebhookEndpointReason {}

/// An endpoint with its secret, which is shown this once.
#[derive(Debug, Clone)]
pub struct IssuedEndpoint {
    /// The endpoint as it is stored from now on.
    pub endpoint: WebhookEndpoint,
    /// What the receiver verifies with: the secret of an HMAC. Of Ed25519 the receiver has the public key, and the private one is not
    /// shown.
    pub secret: Option<SigningSecret>,
}

/// Returns a page of the tenant's endpoints, newest first.
///
/// # Errors
/// [`WebhookEndpointError`].
pub async fn list(cx: &Cx, page: PageRequest) -> Result<Page<WebhookEndpoint>, WebhookEndpointError> {
    cx.require(Permission::ReadWebhooks)?;
    cx.read(async |work| Ok(work.webhook_endpoints().list(page).await?))
        .await
}

/// Returns one endpoint.
///
/// # Errors
/// [`WebhookEndpointError`].
pub async fn get(cx: &Cx, id: WebhookEndpointId) -> Result<WebhookEndpoint, WebhookEndpointError> {
    cx.require(Permission::ReadWebhooks)?;
    cx.read(async |work| {
        let found = work.webhook_endpoints().find(id).await?;
        found.ok_or(WebhookEndpointError::NotFound)
    })
    .await
}

/// Creates an endpoint with a new secret.
///
/// # Errors
/// [`WebhookEndpointError`].
pub async fn create(cx: &Cx, new: NewWebhookEndpoint) -> Result<IssuedEndpoint, WebhookEndpointError> {
    cx.require(Permission::WriteWebhooks)?;
    let factor = cx.require_recent_factor().await??;
    check_event_types(&cx.ports().event_types, &new.event_types)?;
    let secret = generate(cx, new.signature, factor)?;
    let (id, rules) = (WebhookEndpointId::next(cx.ids()), &cx.app().policy.webhooks);
    let (endpoint, credentials) = WebhookEndpoint::new(id, new, secret, rules, cx.now())?;
    cx.write(async |work| {
        // Two requests for the last place come one after the other.
        acting::hold(cx, work).await??;
        if work.webhook_endpoints().count().await? >= WebhookEndpoint::MOST {
            return Err(WebhookEndpointReason::TooMany.into());
        }
        let entitlements = &cx.ports().entitlements;
        entitlements
            .require_one_more(cx, work, Countable::WebhookEndpoints)
            .await?;
        let mut endpoint = endpoint;
        keep(cx, work, &mut endpoint, &credentials).await?;
        work.webhook_endpoints().insert(&endpoint).await?;
        cx.record(work, Changed::created(&endpoint)).await?;
        Ok(issued(endpoint, &credentials.secrets))
    })
    .await
}

/// Changes an endpoint. One that is enabled again begins without failures.
///
/// # Errors
/// [`WebhookEndpointError`].
pub async fn update(
    cx: &Cx,
    id: WebhookEndpointId,
    when: &Precondition,
    patch: WebhookEndpointPatch,
) -> Result<WebhookEndpoint, WebhookEndpointError> {
    cx.require(Permission::WriteWebhooks)?;
    // A changed URL leads all further events to another receiver.
    let _: RecentFactor = cx.require_recent_factor().await??;
    if let Some(event_types) = patch.event_types.value() {
        check_event_types(&cx.ports().event_types, event_types)?;
    }
    cx.write(async |work| {
        acting::hold(cx, work).await??;
        let before = find_for_update(work, id).await?;
        when.check(before.version)?;
        let mut endpoint = before.clone();
        let rules = &cx.app().policy.webhooks;
        if let Some(headers) = endpoint.apply(patch, rules, cx.now())? {
            let mut credentials = open(cx, work, &before).await?;
            credentials.headers = headers;
            keep(cx, work, &mut endpoint, &credentials).await?;
        }
        work.webhook_endpoints().update(&endpoint).await?;
        if has_to_wake(&before, &endpoint) {
            delivery::wake(cx, work, id).await?;
        }
        let action = action_of(&before, &endpoint);
        cx.record(work, Changed::with(action, Some(&before), &endpoint))
            .await?;
        Ok(endpoint)
    })
    .await
}

/// Deletes an endpoint: marks it, cancels what is queued, and has a job remove its deliveries and attempts.
///
/// # Errors
/// [`WebhookEndpointError`].
pub async fn delete(cx: &Cx, id: WebhookEndpointId, when: &Precondition) -> Result<(), WebhookEndpointError> {
    cx.require(Permission::WriteWebhooks)?;
    cx.write(async |work| {
        acting::hold(cx, work).await??;
        let endpoint = find_for_update(work, id).await?;
        when.check(endpoint.version)?;
        work.webhook_endpoints().delete(id, cx.now()).await?;
        // The dispatcher cancels what is queued.
        delivery::wake(cx, work, id).await?;
        removal::ask(cx, work, id).await?;
        Ok(cx.record(work, Changed::deleted(&endpoint)).await?)
    })
    .await
}

/// Gives an endpoint a new secret. Those before sign as well for so many seconds, so that the receiver can change in between.
///
/// # Errors
/// [`WebhookEndpointError`].
pub async fn rotate(
    cx: &Cx,
    id: WebhookEndpointId,
    grace_period_seconds: i64,
) -> Result<IssuedEndpoint, WebhookEndpointError> {
    cx.require(Permission::WriteWebhooks)?;
    let factor = cx.require_recent_factor().await??;
    let grace = read_grace(grace_period_seconds)?;
    cx.write(async |work| {
        acting::hold(cx, work).await??;
        let before = find_for_update(work, id).await?;
        let mut credentials = open(cx, work, &before).await?;
        let secret = generate(cx, before.signature, factor)?;
        let mut endpoint = before.clone();
        endpoint.rotate(&mut credentials, secret, grace, cx.now());
        keep(cx, work, &mut endpoint, &credentials).await?;
        work.webhook_endpoints().update(&endpoint).await?;
        let changed = Changed::with("webhook_endpoint.secret_rotated", Some(&before), &endpoint);
        cx.record(work, changed).await?;
        Ok(issued(endpoint, &credentials.secrets))
    })
    .await
}

fn issued(endpoint: WebhookEndpoint, secrets: &EndpointSecrets) -> IssuedEndpoint {
    let secret = match endpoint.signature {
        SignatureKind::Hmac => Some(secrets.current.clone()),
        SignatureKind::Ed25519 => None,
    };
    IssuedEndpoint { endpoint, secret }
}

/// Whether the dispatcher looks at the endpoint at once, also where it rests: what is queued for a disabled endpoint is canceled, another
/// receiver has not asked for the rest, and without the order the next message waits for none.
fn has_to_wake(before: &WebhookEndpoint, after: &WebhookEndpoint) -> bool {
    !after.state.is_enabled()
        || !before.state.is_enabled()
        || before.url != after.url
        || before.ordered != after.ordered
}

/// What a change is called: a change of the state by its name, whatever else it changes.
const fn action_of(before: &WebhookEndpoint, after: &WebhookEndpoint) -> &'static str {
    match (before.state.is_enabled(), after.state.is_enabled()) {
        (false, true) => "webhook_endpoint.enabled",
        (true, false) => "webhook_endpoint.disabled",
        _ => "webhook_endpoint.updated",
    }
}

/// Each entry must let a type of the catalogue through: one with a typing error would wait for its events for ever.
fn check_event_types(types: &EventTypes, entries: &[String]) -> Result<(), Invalid> {
    let known = types.all().iter();
    let known: Vec<EventType> = known.filter_map(|one| EventType::parse(one.name())).collect();
    let is_unknown = |entry: &String| {
        let pattern = EventPattern::parse(entry);
        pattern.is_some_and(|pattern| !known.iter().any(|one| pattern.matches(one)))
    };
    match entries.iter().position(is_unknown) {
        None => Ok(()),
        Some(index) => Err(Invalid::one(
            format!("/event_types/{index}"),
            "unknown_event_type",
            "must be a type of GET /api/v1/webhooks/event-types, or a group of them such as `project.*`",
        )),
    }
}

fn read_grace(seconds: i64) -> Result<Duration, Invalid> {
    let grace = u64::try_from(seconds).ok().map(Duration::from_secs);
    let within = grace.filter(|grace| *grace <= EndpointSecrets::LONGEST_GRACE);
    within.ok_or_else(|| {
        Invalid::one(
            "/grace_period_seconds",
            "out_of_range",
            "must be 0 to 604800 seconds",
        )
    })
}

fn generate(cx: &Cx, kind: SignatureKind, _: RecentFactor) -> Result<NewSecret, StoreError> {
    let generated = cx.ports().webhook_keys.generate(kind);
    generated.map_err(|error: SecretError| StoreError::Unavailable(error.to_string()))
}

async fn open(
    cx: &Cx,
    work: &mut Work,
    endpoint: &WebhookEndpoint,
) -> Result<EndpointCredentials, WebhookEndpointError> {
    let opened = delivery_state::credentials(cx, work, endpoint).await?;
    Ok(opened.ok_or(WebhookEndpointReason::Unreadable)?)
}

async fn keep(
    cx: &Cx,
    work: &mut Work,
    endpoint: &mut WebhookEndpoint,
    credentials: &EndpointCredentials,
) -> Result<(), StoreError> {
    let seal = cx.seal(work).await?;
    endpoint.keep(cx.scope().tenant(), credentials, seal.as_ref());
    Ok(())
}

async fn find_for_update(
    work: &mut Work,
    id: WebhookEndpointId,
) -> Result<WebhookEndpoint, WebhookEndpointError> {
    let found = work.webhook_endpoints().find_for_update(id).await?;
    found.ok_or(WebhookEndpointError::NotFound)
}
