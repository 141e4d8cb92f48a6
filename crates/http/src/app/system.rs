//! What needs no tenant: health, keys, and the pages that explain errors.

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
    web::{Data, Path, ServiceConfig},
};
use serde::Serialize;
use serde_json::{Map, Value};
use tenantry_domain::identity::JWKS_MAX_AGE_SECONDS;
use tenantry_domain::kernel::ErrorCode;
use utoipa::ToSchema;

use crate::app::{observe::Verbatim, readiness::Verdict};
use crate::extract::operator_ctx::OperatorProbe;
use crate::{Answer, Api, ApiError, Endpoint};

/// Whether the service works.
#[derive(Serialize, ToSchema)]
#[schema(examples(json!({"status": "ok", "checks": {"database": "ok"}})))]
pub(crate) struct Health {
    /// `ok`, `unavailable` or `draining`.
    status: &'static str,
    /// What was checked, and whether it is `ok` or `unavailable`; `isolation` is `ok`, `degraded`
    /// when the last check of the database found a fault in it or failed, or `overridden` where the configuration says to serve in spite
    /// of a grave one; `redis` is `ok`, or `degraded` while it is away
    /// and every server goes by what it knows itself.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = std::collections::BTreeMap<String, String>, required = false)]
    checks: Map<String, Value>,
}

/// The health of each component.
#[derive(Serialize, ToSchema)]
#[schema(examples(json!({"status": "ok", "components": {
    "database": {"status": "ok", "latency_ms": 0.4, "pool": {"open": 4, "max": 10},
        "migrations": {"applied": 13, "pending": 0}, "replication_lag_ms": null},
    "redis": {"status": "off"},
    "jobs": {"status": "ok", "queued": 2, "running": 1, "parked": 0, "dead": 0, "oldest_queued_seconds": 0.2},
    "mail": {"status": "ok", "transport": "smtp", "last_success": "2026-11-02T09:30:00Z",
        "last_failure": null, "problem": null},
    "caches": {
        "status": "ok",
        "directory": {"hits": 4711, "loads": 12, "entries": 9},
        "settings": {"hits": 118, "loads": 3, "entries": 2},
        "flags": {"hits": 904, "loads": 3, "entries": 2},
    },
    "spool": {"status": "ok", "pending": 3, "remembered": 0, "lost": 0, "reason": null},
    "disk": {"status": "ok", "free_bytes": 51_539_607_552_u64, "total_bytes": 103_079_215_104_u64},
    "memory": {"status": "ok", "resident_bytes": 48_234_496},
    "guard": {"status": "ok", "result": "ok", "reason": null, "checked_at": "2026-11-02T09:30:00Z",
        "age_seconds": 814.2, "findings": [], "problem": null},
}})))]
pub(crate) struct DetailedHealth {
    /// `ok` or `unavailable`.
    status: &'static str,
    /// Each has a `status`, which is `ok`, `degraded`, `down` or `off`, a `reason` when it is down, and figures of its
    /// own.
    #[schema(value_type = std::collections::BTreeMap<String, serde_json::Value>)]
    components: Map<String, Value>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::open("/health").get(health))
        .service(Endpoint::open("/health/liveness").get(liveness))
        .service(Endpoint::open("/health/readiness").get(readiness))
        .service(Endpoint::open("/health/detailed").get(detailed))
        // Names that probes are often given.
        .service(Endpoint::open("/healthz").get(health))
        .service(Endpoint::open("/livez").get(liveness))
        .service(Endpoint::open("/readyz").get(readiness))
        .service(Endpoint::anonymous("/.well-known/jwks.json").get(jwks))
        .service(Endpoint::anonymous("/problems").get(problems))
        .service(Endpoint::anonymous("/problems/{code}").get(problem));
}

/// Get the health of the service
///
/// Answers 200 when the service is live and ready.
#[utoipa::path(
    get, path = "/health", operation_id = "health", tag = "System",
    responses(
        (status = 200, description = "The service is healthy.", body = Health),
        (status = 503, description = "It is not ready.", body = Health),
    ),
)]
pub(crate) async fn health(api: Data<Api>) -> HttpResponse {
    report(&api.readiness.verdict().await)
}

/// Get the liveness of the process
///
/// Checks nothing else: a process must not be restarted because its database is down.
#[utoipa::path(
    get, path = "/health/liveness", operation_id = "liveness", tag = "System",
    responses((status = 200, description = "The process is alive.", body = Health)),
)]
pub(crate) async fn liveness() -> HttpResponse {
    report(&Verdict::Checked {
        checks: Vec::new(),
        notices: Vec::new(),
    })
}

/// Get the readiness of the service
///
/// Answers 503 while the service cannot handle requests, for example while its database is down.
#[utoipa::path(
    get, path = "/health/readiness", operation_id = "readiness", tag = "System",
    responses(
        (status = 200, description = "The service can handle requests.", body = Health),
        (status = 503, description = "Something it needs is away, or it is about to stop.", body = Health),
    ),
)]
pub(crate) async fn readiness(api: Data<Api>) -> HttpResponse {
    report(&api.readiness.verdict().await)
}

/// Get the health of each component
///
/// All components are asked at once. A component that does not answer in time is `down`.
#[utoipa::path(
    get, path = "/health/detailed", operation_id = "health_detailed", tag = "Operators",
    responses(
        (status = 200, description = "All required components are up.", body = DetailedHealth),
        (status = 503, description = "Something that is needed is down.", body = DetailedHealth),
    ),
    security(("operator" = [])),
)]
pub(crate) async fn detailed(_operator: OperatorProbe, api: Data<Api>) -> HttpResponse {
    let (up, components) = api.readiness.components.look().await;
    let view = |status| DetailedHealth { status, components };
    if up {
        return HttpResponse::Ok().json(view("ok"));
    }
    let mut response = HttpResponse::ServiceUnavailable()
        .insert_header((header::RETRY_AFTER, "1"))
        .json(view("unavailable"));
    response.extensions_mut().insert(Verbatim);
    response
}

/// Get the public keys of access tokens
///
/// A JSON Web Key Set (RFC 7517). Verify access tokens with the key that `kid` names. A new key is published for longer than the
/// answer may be cached before it signs, and a former key until all of its tokens have expired.
#[utoipa::path(
    get, path = "/.well-known/jwks.json", operation_id = "jwks", tag = "System",
    responses((
        status = 200, description = "The keys.", body = serde_json::Value, content_type = "application/json",
        example = json!({"keys": [
            {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "…", "x": "…"},
        ]}),
    )),
)]
pub(crate) async fn jwks(api: Data<Api>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((
            header::CACHE_CONTROL,
            format!("public, max-age={JWKS_MAX_AGE_SECONDS}"),
        ))
        .json(api.app.ports.access_tokens.jwks())
}

/// List error codes
///
/// An HTML page with every error code of the API.
#[utoipa::path(
    get, path = "/problems", operation_id = "list_problems", tag = "System",
    responses(
        (status = 200, description = "The page.", body = String, content_type = "text/html"),
    ),
)]
pub(crate) async fn problems() -> HttpResponse {
    let row = |code: &ErrorCode| {
        let code = *code;
        let (name, status, title) = (code.as_str(), code.status(), escape(code.title()));
        format!("<li><a href=\"/problems/{name}\"><code>{name}</code></a> ({status}): {title}</li>\n")
    };
    let rows: String = ErrorCode::ALL.iter().map(row).collect();
    page("Errors", &format!("<ul>\n{rows}</ul>"))
}

/// Explain an error code
///
/// The HTML page that the `type` of a problem document links to.
#[utoipa::path(
    get, path = "/problems/{code}", operation_id = "get_problem", tag = "System",
    params(("code" = String, Path, description = "The code.", example = "validation_failed")),
    responses(
        (status = 200, description = "The page.", body = String, content_type = "text/html"),
    ),
    extensions(("x-errors" = json!(["not_found"]))),
)]
pub(crate) async fn problem(code: Path<String>) -> Answer {
    let code = ErrorCode::parse(&code).ok_or_else(|| ApiError::new(ErrorCode::NotFound))?;
    let (name, status, about) = (code.as_str(), code.status(), escape(code.about()));
    let body = format!(
        "<p><code>{name}</code>, status {status}</p>\n<p>{about}</p>\n\
         <p><a href=\"/problems\">All errors</a></p>"
    );
    Ok(page(code.title(), &body))
}

fn report(verdict: &Verdict) -> HttpResponse {
    let name = |holds: bool| if holds { "ok" } else { "unavailable" };
    let (status, checks): (_, Map<String, Value>) = match verdict {
        Verdict::Draining => ("draining", Map::new()),
        Verdict::Checked { checks, notices } => {
            let all = checks.iter().all(|(_, holds)| *holds);
            let checks = checks.iter().map(|(check, holds)| (*check, name(*holds)));
            let told = checks.chain(notices.iter().copied());
            (
                name(all),
                told.map(|(check, state)| (check.to_owned(), state.into()))
                    .collect(),
            )
        }
    };
    if status == "ok" {
        return HttpResponse::Ok().json(Health { status, checks });
    }
    let mut response = HttpResponse::build(StatusCode::SERVICE_UNAVAILABLE);
    let mut response = response
        .insert_header((header::RETRY_AFTER, "1"))
        .json(Health { status, checks });
    // A probe wants to know which check it was; nothing of the inside is told by that.
    response.extensions_mut().insert(Verbatim);
    response
}

fn page(title: &str, body: &str) -> HttpResponse {
    let title = escape(title);
    let html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
         <body>\n<h1>{title}</h1>\n{body}\n</body>\n</html>\n"
    );
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CACHE_CONTROL, "public, max-age=3600"))
        .body(html)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
