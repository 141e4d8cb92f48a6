//! The HTTP adapter: translates requests into use cases and what they return into answers.
//!
//! * [`app`] builds the whole application out of an [`Api`]; the server and the tests use the same one.
//! * [`listen`] serves it on a listener, and keeps clients from holding on to connections or to the server.
//! * Every route is an [`Endpoint`]. [`Endpoint::at`] authenticates before anything of the body is read, and
//!   takes what the request costs from the buckets of its tenant and user ([`Limits`]); a handler then gets its context from [`Ctx`], whose type parameter names the [permission] it needs.
//! * Every error, the framework's own included, leaves as a problem document (RFC 9457): see [`ApiError`].
//!
//! A service that embeds Tenantry adds its own routes with [`Api::with_routes`]:
//!
//! ```
//! use actix_web::{HttpResponse, web::ServiceConfig};
//! use tenantry_http::{ApiError, Ctx, Endpoint, permission::ReadProjects};
//!
//! async fn notes(cx: Ctx<ReadProjects>) -> Result<HttpResponse, ApiError> {
//!     Ok(HttpResponse::Ok().json(serde_json::json!({"tenant": cx.scope().tenant()})))
//! }
//!
//! fn routes(config: &mut ServiceConfig) {
//!     config.service(Endpoint::at("/notes").get(notes));
//! }
//! ```
#![deny(missing_docs)]
#![cfg_attr(
    test,
    expect(
        clippy::too_many_lines,
        reason = "tests are tables of cases: longer with each case, and no harder to read"
    )
)]

mod app;
mod connection;
mod extract;
mod middleware;
mod ofrep;
mod openapi;
mod problem;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod v1;
mod webhook;

pub use app::api::{Api, app, configure};
pub use app::component::{Component, ComponentState, Seen};
pub use app::config::HttpConfig;
pub use app::endpoint::Endpoint;
pub use app::metrics;
pub use app::readiness::{HealthCheck, Readiness};
pub use app::tls_ask;
pub use connection::listen::{ListenConfig, listen};
pub use extract::answer::{Answer, created, entity, no_content};
pub use extract::body::{Body, OptionalBody};
pub use extract::ctx::Ctx;
pub use extract::etag::{IfMatch, IfNoneMatch};
pub use extract::feature;
pub use extract::feature::{PlanFeature, RequireFeature};
pub use extract::idempotency::IdempotencyKey;
pub use extract::moment::Moment;
pub use extract::operator_ctx::OperatorCtx;
pub use extract::page::{Lists, NoFilter, PageView, Paged};
pub use extract::path::{Id, Ids};
pub use extract::permission;
pub use extract::query::Query;
pub use middleware::limits::{AddressRates, Limits, OperatorRates};
pub use middleware::quota::Quotas;
pub use openapi::openapi::{openapi, openapi_with};
pub use problem::error::ApiError;
pub use problem::problem::{Excess, FactorNeeded, PlanProblem, Problem, ProblemField, QuotaProblem};
