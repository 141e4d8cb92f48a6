//! Features of plans as types, for the signatures of handlers: `RequireFeature<Branding>`.

use std::future::{Ready, ready};
use std::marker::PhantomData;

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use tenantry_tenancy::plans::Feature;

use crate::ApiError;
use crate::extract::ctx;

/// A type that stands for a feature.
pub trait PlanFeature: 'static {
    /// The plan feature that a request needs.
    const FEATURE: Feature;
}

macro_rules! features {
    ($($name:ident = $feature:ident;)*) => {$(
        #[doc = concat!("Stands for [`Feature::", stringify!($feature), "`].")]
        #[derive(Debug, Clone, Copy)]
        pub struct $name;

        impl PlanFeature for $name {
            const FEATURE: Feature = Feature::$feature;
        }
    )*};
}

features! {
    AuditExport = AUDIT_EXPORT;
    Branding = BRANDING;
    CustomDomain = CUSTOM_DOMAIN;
    CustomRoles = CUSTOM_ROLES;
}

/// The tenant's plan has the feature; in a handler's signature right after its [`Ctx`](crate::Ctx), so that the body of
/// a request that the plan does not allow is not read. The use case checks again
/// ([`Cx::require_feature`](tenantry_tenancy::Cx::require_feature)).
#[derive(Debug, Clone, Copy)]
pub struct RequireFeature<F>(PhantomData<F>);

impl<F: PlanFeature> FromRequest for RequireFeature<F> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let allowed = ctx::admitted(request).and_then(|cx| Ok(cx.require_feature(F::FEATURE)?));
        ready(allowed.map(|()| Self(PhantomData)))
    }
}
