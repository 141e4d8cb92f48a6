use std::{
    future::{Ready, ready},
    marker::PhantomData,
    ops::Deref,
    sync::Arc,
    time::Duration,
};

use actix_web::{
    Error, FromRequest, HttpMessage, HttpRequest,
    body::{BoxBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    middleware::Next,
};
use futures_util::future::LocalBoxFuture;
use tenantry_domain::kernel::{ErrorCode, StoreError};
use tenantry_domain::operations::{OperatorNeeds, OperatorPermission, OperatorScope};
use tenantry_domain::tenant::{Denied, Refused};
use tenantry_tenancy::admin::operator_log;
use tenantry_tenancy::{OperatorCx, Origin};
use tokio::time::timeout;

use crate::extract::{api_key, origin};
use crate::middleware::{authenticate::bearer, limits, request::RequestContext};
use crate::{Api, ApiError};

/// The context of a handler for operators of the platform, and in its type the permission that the handler needs: the first parameter
/// of such a handler. The use case checks again.
///
/// As with [`Ctx`](crate::Ctx) there is none to be had without authentication before it, which
/// [`Endpoint::operator`](crate::Endpoint::operator) brings: that is a 500, never an open door. A handler that names no permission
/// does not compile:
///
/// ```compile_fail,E0107
/// async fn anything(cx: tenantry_http::OperatorCtx) {}
/// ```
pub struct OperatorCtx<P> {
    cx: OperatorCx,
    needs: PhantomData<P>,
}

impl<P> std::fmt::Debug for OperatorCtx<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.cx.fmt(f)
    }
}

impl<P> Deref for OperatorCtx<P> {
    type Target = OperatorCx;

    fn deref(&self) -> &OperatorCx {
        &self.cx
    }
}

impl<P: OperatorNeeds> FromRequest for OperatorCtx<P> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(operator_ctx(request))
    }
}

/// What the authentication of operators leaves in the extensions of a request.
#[derive(Clone)]
struct Admitted {
    scope: OperatorScope,
    origin: Origin,
}

/// Admits the bearer of an operator's access token, or answers in the route's stead. The body has not been read.
pub(crate) async fn authenticate_operator(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    if let Err(error) = admit(request.request()).await {
        return Ok(request.error_response(error));
    }
    let response = next.call(request).await?.map_into_boxed_body();
    if let Err(error) = record_refusal(response.request()).await {
        tracing::warn!(%error, "a refused request of an operator is not recorded");
    }
    Ok(response)
}

/// A permission that the operator of a request lacks. The extractor, which does not wait, leaves it for the record.
struct Lacking(OperatorPermission);

async fn record_refusal(request: &HttpRequest) -> Result<(), StoreError> {
    let Some(Lacking(permission)) = request.extensions_mut().remove::<Lacking>() else {
        return Ok(());
    };
    match context(request) {
        Ok(cx) => operator_log::record_refusal(&cx, permission).await,
        Err(_) => Ok(()),
    }
}

/// Admits the bearer of an operator's access token.
///
/// # Errors
/// Those of [`OperatorGate::bearer`](tenantry_domain::operations::OperatorGate::bearer).
pub(crate) async fn admit(request: &HttpRequest) -> Result<(), ApiError> {
    let api = Api::of(request)?;
    let context = RequestContext::of(request)?;
    api_key::of_header(request.headers())?;
    let token = bearer(request.headers())?;
    let gate = &api.app.ports.operator_gate;
    let scope = gate.bearer(token, context.id.clone()).await?;
    context.identify_operator(&scope);
    limits::take_of_operator(request, &api, &scope).await?;
    let origin = origin::of(request, &api);
    request.extensions_mut().insert(Admitted { scope, origin });
    Ok(())
}

fn operator_ctx<P: OperatorNeeds>(request: &HttpRequest) -> Result<OperatorCtx<P>, ApiError> {
    let cx = context(request)?;
    match cx.require(P::PERMISSION) {
        Ok(()) => Ok(OperatorCtx {
            cx,
            needs: PhantomData,
        }),
        Err(Refused::Forbidden) => {
            request.extensions_mut().insert(Lacking(P::PERMISSION));
            let roles: Vec<_> = P::PERMISSION.roles().iter().map(|role| role.as_str()).collect();
            let detail = format!(
                "The request is for operators with the role {}.",
                roles.join(" or ")
            );
            Err(ApiError::new(ErrorCode::Forbidden).with_detail(detail))
        }
        Err(refused) => Err(refused.into()),
    }
}

fn context(request: &HttpRequest) -> Result<OperatorCx, ApiError> {
    let admitted = request.extensions().get::<Admitted>().cloned();
    let admitted = admitted
        .ok_or_else(|| ApiError::wiring("a handler for operators is not behind their authentication"))?;
    let api = Api::of(request)?;
    Ok(OperatorCx::new(
        Arc::clone(&api.app),
        admitted.scope,
        admitted.origin,
    ))
}

/// How long the store may take to say whether an operator is active before a probe does without.
const PATIENCE: Duration = Duration::from_millis(300);

/// An operator who asks how the service is, which must work just when it does not: while the store is away or silent a
/// good token is enough. Nothing but figures of the machinery is behind it, no tenant's and no operator's data.
pub(crate) struct OperatorProbe(());

impl FromRequest for OperatorProbe {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move { probe(&request).await })
    }
}

async fn probe(request: &HttpRequest) -> Result<OperatorProbe, ApiError> {
    let api = Api::of(request)?;
    let context = RequestContext::of(request)?;
    api_key::of_header(request.headers())?;
    let token = bearer(request.headers())?;
    let gate = &api.app.ports.operator_gate;
    match timeout(PATIENCE, gate.bearer(token, context.id.clone())).await {
        Ok(Ok(scope)) => context.identify_operator(&scope),
        Ok(Err(Denied::Store(_))) | Err(_) => gate.token(token)?,
        Ok(Err(
            denied @ (Denied::Token(_)
            | Denied::Revoked
            | Denied::ApiKey(_)
            | Denied::Address
            | Denied::TenantNotFound
            | Denied::TenantGone
            | Denied::LeaseLost),
        )) => return Err(denied.into()),
    }
    Ok(OperatorProbe(()))
}
