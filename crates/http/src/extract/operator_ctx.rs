use std::{
    future::{Ready, ready},
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
use tenantry_domain::operations::OperatorScope;
use tenantry_domain::tenant::Denied;
use tenantry_tenancy::{OperatorCx, Origin};
use tokio::time::timeout;

use crate::extract::{api_key, origin};
use crate::middleware::{authenticate::bearer, request::RequestContext};
use crate::{Api, ApiError};

/// The context of a handler for operators of the platform: the first parameter of such a handler.
///
/// As with [`Ctx`](crate::Ctx) there is none to be had without authentication before it, which
/// [`Endpoint::operator`](crate::Endpoint::operator) brings: that is a 500, never an open door. Operators have no roles.
pub struct OperatorCtx(OperatorCx);

impl std::fmt::Debug for OperatorCtx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Deref for OperatorCtx {
    type Target = OperatorCx;

    fn deref(&self) -> &OperatorCx {
        &self.0
    }
}

impl FromRequest for OperatorCtx {
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
    Ok(next.call(request).await?.map_into_boxed_body())
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
    let origin = origin::of(request, &api);
    request.extensions_mut().insert(Admitted { scope, origin });
    Ok(())
}

fn operator_ctx(request: &HttpRequest) -> Result<OperatorCtx, ApiError> {
    let admitted = request.extensions().get::<Admitted>().cloned();
    let admitted = admitted
        .ok_or_else(|| ApiError::wiring("a handler for operators is not behind their authentication"))?;
    let api = Api::of(request)?;
    let app = Arc::clone(&api.app);
    Ok(OperatorCtx(OperatorCx::new(app, admitted.scope, admitted.origin)))
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
