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

mod answer;
mod api;
mod api_key;
mod authenticate;
mod body;
mod component;
mod connection;
mod ctx;
mod cursor;
mod deadline;
mod docs;
mod endpoint;
mod error;
mod error_map;
mod etag;
mod event_stream;
pub mod feature;
mod frames;
mod guest;
mod hints;
mod http2;
mod idempotency;
mod incoming;
mod json;
mod limits;
mod links;
mod listen;
pub mod metrics;
mod moment;
mod networks;
mod observe;
mod ofrep;
mod openapi;
mod operation;
mod operator_ctx;
mod origin;
mod page;
mod path;
pub mod permission;
mod problem;
mod query;
mod quota;
mod readiness;
mod request;
mod schemas;
mod security;
mod settings;
mod shape;
mod system;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod v1;
mod webhook;

pub use answer::{Answer, created, entity, no_content};
pub use api::{Api, app, configure};
pub use body::Body;
pub use component::{Component, ComponentState, Seen};
pub use ctx::Ctx;
pub use endpoint::Endpoint;
pub use error::ApiError;
pub use etag::{IfMatch, IfNoneMatch};
pub use feature::{PlanFeature, RequireFeature};
pub use idempotency::IdempotencyKey;
pub use limits::{AddressRates, Limits};
pub use listen::{ListenSettings, listen};
pub use moment::Moment;
pub use openapi::openapi;
pub use operator_ctx::OperatorCtx;
pub use page::{Lists, PageView, Paged};
pub use path::{Id, Ids};
pub use permission::Needs;
pub use problem::{Excess, FactorNeeded, PlanProblem, Problem, ProblemField, QuotaProblem};
pub use query::Query;
pub use quota::Quotas;
pub use readiness::{HealthCheck, Readiness};
pub use settings::HttpSettings;
