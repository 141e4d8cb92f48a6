use std::{
    future::{Ready, ready},
    marker::PhantomData,
    ops::Deref,
    sync::Arc,
};

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload};
use tenantry_domain::kernel::Needs;
use tenantry_tenancy::Cx;

use crate::middleware::authenticate::Admitted;
use crate::{Api, ApiError};

/// The context of a handler behind authentication, and in its type the permission that the handler needs.
///
/// It is the first parameter of a handler: extractors run in order, so that whoever lacks the permission is
/// turned away before their body is read. The use case checks again. Without authentication before it there
/// is no context to be had: that is a 500, never an open door.
pub struct Ctx<P> {
    cx: Cx,
    needs: PhantomData<P>,
}

impl<P> std::fmt::Debug for Ctx<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.cx.fmt(f)
    }
}

impl<P> Deref for Ctx<P> {
    type Target = Cx;

    fn deref(&self) -> &Cx {
        &self.cx
    }
}

impl<P: Needs> FromRequest for Ctx<P> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(ctx(request))
    }
}

fn ctx<P: Needs>(request: &HttpRequest) -> Result<Ctx<P>, ApiError> {
    let cx = admitted(request)?;
    cx.require(P::PERMISSION)?;
    Ok(Ctx {
        cx,
        needs: PhantomData,
    })
}

/// The context that authentication has left, before anybody has asked for a permission.
pub(crate) fn admitted(request: &HttpRequest) -> Result<Cx, ApiError> {
    let admitted = request.extensions().get::<Admitted>().cloned();
    let admitted =
        admitted.ok_or_else(|| ApiError::wiring("a handler with a context is not behind authentication"))?;
    let api = Api::of(request)?;
    Ok(Cx::new(Arc::clone(&api.app), admitted.scope, admitted.origin))
}
