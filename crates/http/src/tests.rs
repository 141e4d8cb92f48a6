//! What callers see of the application as a whole; the use cases themselves are tested elsewhere.

use std::{
    io::Write,
    sync::{Arc, Mutex, OnceLock},
};

use actix_web::{HttpResponse, http::Method, web};
use async_trait::async_trait;
use serde_json::Value;

use crate::{
    Api, Body, Ctx, Endpoint, HealthCheck, HttpConfig, Readiness,
    metrics::{Audience, Format},
    permission::ReadProjects,
    testing::{Call, SOME_ID, api},
};

fn plain() -> Api {
    api(HttpConfig::default())
}

#[actix_web::test]
async fn an_unknown_path_is_404_and_a_wrong_method_405_for_everybody() {
    let api = plain();
    for uri in [
        "/nothing",
        "/api/v1",
        "/api/v1/nothing",
        "/api/v1/projects/%ff/%00",
        "/docs/none.js",
    ] {
        let reply = Call::get(uri).send(&api).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (404, "not_found"),
            "{uri}"
        );
        assert_eq!(reply.json()["instance"], uri);
    }
    let reply = Call::new(Method::PUT, "/api/v1/projects").send(&api).await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (405, "method_not_allowed")
    );
    assert_eq!(reply.header("Allow"), Some("GET, HEAD, POST"));
    let reply = Call::new(Method::DELETE, "/api/v1/auth/login").send(&api).await;
    assert_eq!(reply.header("Allow"), Some("POST"));
}

#[actix_web::test]
async fn who_is_not_known_is_told_what_is_missing() {
    let api = plain();
    let challenge = "Bearer error=\"invalid_token\"";
    let cases = [
        (Call::get("/api/v1/tasks"), "unauthenticated", "Bearer"),
        (
            Call::get("/api/v1/tasks").header("Authorization", "Basic abc"),
            "unauthenticated",
            "Bearer",
        ),
        (
            Call::get("/api/v1/tasks").bearer("forged"),
            "unauthenticated",
            challenge,
        ),
        (
            Call::get("/api/v1/tasks").bearer("expired"),
            "token_expired",
            challenge,
        ),
        (
            Call::get("/api/v1/tasks").bearer("removed"),
            "token_revoked",
            challenge,
        ),
        (
            Call::post("/api/v1/auth/refresh", r#"{"refresh_token":"x"}"#),
            "token_revoked",
            challenge,
        ),
    ];
    for (call, code, challenge) in cases {
        let reply = call.send(&api).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (401, code));
        assert_eq!(reply.header("WWW-Authenticate"), Some(challenge), "{code}");
    }
    let doubled = Call::get("/api/v1/tasks")
        .bearer("viewer")
        .bearer("admin")
        .send(&api)
        .await;
    assert_eq!(
        (doubled.status.as_u16(), doubled.code().as_str()),
        (400, "invalid_request")
    );
}

#[actix_web::test]
async fn the_body_of_who_may_not_is_not_read() {
    let reply = Call::post("/api/v1/projects", "nonsense")
        .bearer("viewer")
        .send(&plain())
        .await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (403, "forbidden"));
    let reply = Call::post("/api/v1/projects", "nonsense").send(&plain()).await;
    assert_eq!(reply.code(), "unauthenticated");
}

#[actix_web::test]
async fn a_failure_inside_is_not_described() {
    let reply = Call::get("/api/v1/tasks").bearer("viewer").send(&plain()).await;
    assert_eq!(
        (reply.status.as_u16(), reply.code().as_str()),
        (503, "unavailable")
    );
    assert_eq!(reply.header("Retry-After"), Some("1"));
    assert_eq!(reply.header("Tenant-Resolved-By"), Some("credential"));
    assert!(!reply.text.contains("secret"));
}

#[actix_web::test]
async fn bodies_are_json_of_limited_size() {
    let api = api(HttpConfig {
        body_limit_bytes: 100,
        ..HttpConfig::default()
    });
    let post = |json: &str| Call::post("/api/v1/projects", json).bearer("member");
    let untyped = |kind: &str| {
        let call = Call::new(Method::POST, "/api/v1/projects")
            .bearer("member")
            .body(r#"{"name":"a"}"#);
        if kind.is_empty() {
            call
        } else {
            call.header("Content-Type", kind)
        }
    };
    let cases = [
        (post(""), 400, "malformed_json"),
        (post("{"), 400, "malformed_json"),
        (post("{}"), 422, "validation_failed"),
        (post(r#"{"name":"a","color":"red"}"#), 422, "unknown_field"),
        (
            post(&format!(r#"{{"name":"{}"}}"#, "x".repeat(100))),
            413,
            "payload_too_large",
        ),
        (post(r#"{"name":"a\u0000b"}"#), 422, "validation_failed"),
        (
            post(r#"{"name":"a"}"#).header("Content-Encoding", "gzip"),
            415,
            "unsupported_media_type",
        ),
        (untyped("text/plain"), 415, "unsupported_media_type"),
        (untyped(""), 415, "unsupported_media_type"),
        (
            untyped("application/merge-patch+json; charset=utf-8"),
            503,
            "unavailable",
        ),
    ];
    for (call, status, code) in cases {
        let reply = call.send(&api).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (status, code),
            "{}",
            reply.text
        );
    }
}

#[actix_web::test]
async fn no_malformed_id_differs_from_another() {
    let api = plain();
    let uris = [
        "/api/v1/tasks/1",
        "/api/v1/tasks/%ff",
        "/api/v1/tasks/0198f3a26c1e7c3a9d550d9f6b1f2a11",
        "/api/v1/tasks/%00",
    ];
    let mut bodies = Vec::new();
    for uri in uris {
        let reply = Call::get(uri).bearer("viewer").send(&api).await;
        assert_eq!(reply.code(), "not_found");
        let mut body = reply.json();
        body["instance"].take();
        body["request_id"].take();
        bodies.push(body);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1);
    let versions = format!("/api/v1/resources/{SOME_ID}/versions");
    for n in ["0", "-1", "01", "+1", "x", "99999999999999999999"] {
        let reply = Call::get(&format!("{versions}/{n}"))
            .bearer("viewer")
            .send(&api)
            .await;
        assert_eq!(reply.code(), "not_found", "{n}");
    }
}

#[actix_web::test]
async fn who_logs_in_names_the_tenant() {
    let api = api(HttpConfig {
        base_domain: Some("example.com".into()),
        ..HttpConfig::default()
    });
    let body = r#"{"email":"ada@example.com","password":"secret"}"#;
    let with_slug =
        |slug: &str| format!(r#"{{"email":"ada@example.com","password":"secret","tenant_slug":"{slug}"}}"#);
    let login = |body: &str| Call::post("/api/v1/auth/login", body);
    let cases = [
        (login(body), "tenant_required", None),
        (
            login(body).header("X-Tenant-Slug", "nobody"),
            "tenant_not_found",
            None,
        ),
        (
            login(body).header("X-Tenant-ID", "nonsense"),
            "tenant_not_found",
            None,
        ),
        (
            login(body).header("Host", "a.b.example.com"),
            "tenant_not_found",
            None,
        ),
        (
            login(&with_slug("other")).header("X-Tenant-Slug", "acme"),
            "tenant_mismatch",
            None,
        ),
        (
            login(body).header("X-Tenant-Slug", "acme"),
            "unavailable",
            Some("header"),
        ),
        (login(&with_slug("acme")), "unavailable", Some("body")),
        (
            login(body).header("Host", "ACME.example.com:8080"),
            "unavailable",
            Some("subdomain"),
        ),
        (
            login(body).header("Host", "acme.example.com").bearer("expired"),
            "unavailable",
            Some("subdomain"),
        ),
        (
            login(body).header("X-Tenant-ID", "a").header("X-Tenant-ID", "b"),
            "invalid_request",
            None,
        ),
    ];
    for (call, code, resolved_by) in cases {
        let reply = call.send(&api).await;
        assert_eq!(reply.code(), code);
        assert_eq!(reply.header("Tenant-Resolved-By"), resolved_by, "{code}");
    }
}

#[actix_web::test]
async fn sign_up_may_be_closed() {
    let body = r#"{"name":"A","slug":"abc","admin":{"email":"a@b.de","full_name":"A"}}"#;
    let reply = Call::post("/api/v1/tenants", body).send(&plain()).await;
    assert_eq!(reply.code(), "forbidden");
    let reply = Call::post(
        "/api/v1/tenants",
        r#"{"name":"A","slug":"abc","admin":["a@b.de","A"]}"#,
    )
    .send(&plain())
    .await;
    assert_eq!(reply.json()["errors"][0]["pointer"], "/admin");
}

#[actix_web::test]
async fn every_answer_has_the_security_headers() {
    let api = api(HttpConfig {
        hsts: true,
        ..HttpConfig::default()
    });
    for uri in [
        "/health",
        "/nothing",
        "/api/v1/tasks",
        "/docs/",
        "/metrics",
        "/problems",
        "/openapi.json",
    ] {
        let reply = Call::get(uri).header("X-Request-ID", "mine-1").send(&api).await;
        assert_eq!(reply.header("X-Request-ID"), Some("mine-1"), "{uri}");
        assert_eq!(reply.header("X-Content-Type-Options"), Some("nosniff"));
        assert_eq!(reply.header("X-Frame-Options"), Some("DENY"));
        assert_eq!(reply.header("Referrer-Policy"), Some("no-referrer"));
        assert!(
            reply
                .header("Content-Security-Policy")
                .unwrap()
                .contains("default-src 'none'")
        );
        assert!(reply.header("Strict-Transport-Security").is_some());
        assert!(reply.header("Cache-Control").is_some());
    }
    let reply = Call::get("/health")
        .header("X-Request-ID", "not sane")
        .send(&api)
        .await;
    assert_ne!(reply.header("X-Request-ID"), Some("not sane"));
}

#[actix_web::test]
async fn browsers_are_answered_before_anybody_is_asked_who_they_are() {
    let preflight = |origin: &str| {
        Call::new(Method::OPTIONS, "/api/v1/tasks")
            .header("Origin", origin)
            .header("Access-Control-Request-Method", "PATCH")
            .header("Access-Control-Request-Headers", "authorization,x-tenant-id")
    };
    let allowed = "https://app.example.com";
    let some = api(HttpConfig {
        cors_origins: vec![allowed.into()],
        ..HttpConfig::default()
    });
    let reply = preflight(allowed).send(&some).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("Access-Control-Allow-Origin")),
        (200, Some(allowed))
    );
    let reply = preflight("https://evil.example").send(&some).await;
    assert_eq!(
        (reply.code().as_str(), reply.header("Access-Control-Allow-Origin")),
        ("invalid_request", None)
    );
    let reply = Call::get("/api/v1/tasks")
        .header("Origin", allowed)
        .send(&some)
        .await;
    assert_eq!(
        (reply.code().as_str(), reply.header("Access-Control-Allow-Origin")),
        ("unauthenticated", Some(allowed))
    );
    assert!(
        reply
            .header("Access-Control-Expose-Headers")
            .unwrap()
            .to_lowercase()
            .contains("x-request-id")
    );
    let any = api(HttpConfig {
        cors_origins: vec!["*".into()],
        ..HttpConfig::default()
    });
    assert_eq!(
        preflight("https://a.example")
            .send(&any)
            .await
            .header("Access-Control-Allow-Origin"),
        Some("*")
    );
    let reply = preflight(allowed).send(&plain()).await;
    assert_eq!(
        (reply.status.as_u16(), reply.header("Access-Control-Allow-Origin")),
        (204, None)
    );
}

#[actix_web::test]
async fn a_panic_is_a_500_like_any_other() {
    async fn panics(_: Ctx<ReadProjects>) -> HttpResponse {
        panic!("the secret reason")
    }
    let api = plain().with_routes(|config| {
        config.service(Endpoint::at("/panic").get(panics));
    });
    let reply = Call::get("/api/v1/panic").bearer("viewer").send(&api).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (500, "internal"));
    assert_eq!(reply.json()["instance"], "/api/v1/panic");
    assert_eq!(reply.header("X-Frame-Options"), Some("DENY"));
    assert!(!reply.text.contains("secret"));
}

#[actix_web::test]
async fn routes_of_an_embedder_are_behind_authentication_however_they_are_made() {
    async fn careless(_: Body<Value>) -> HttpResponse {
        HttpResponse::Ok().finish()
    }
    async fn careful(cx: Ctx<ReadProjects>) -> HttpResponse {
        HttpResponse::Ok().json(cx.scope().tenant())
    }
    async fn open(_: Ctx<ReadProjects>) -> HttpResponse {
        HttpResponse::Ok().finish()
    }
    let api = plain().with_routes(|config| {
        config
            .service(web::resource("/careless").route(web::post().to(careless)))
            .service(Endpoint::at("/careful").get(careful));
    });
    assert_eq!(
        Call::post("/api/v1/careless", "{}").send(&api).await.code(),
        "unauthenticated"
    );
    assert_eq!(
        Call::post("/api/v1/careless", "{}")
            .bearer("viewer")
            .send(&api)
            .await
            .status,
        200
    );
    assert_eq!(
        Call::get("/api/v1/careful").send(&api).await.code(),
        "unauthenticated"
    );
    assert_eq!(
        Call::get("/api/v1/careful")
            .bearer("viewer")
            .send(&api)
            .await
            .status,
        200
    );
    assert_eq!(Call::get("/api/v1/neither").send(&api).await.code(), "not_found");

    // Outside of the scope nothing authenticates, and then there is no context to be had.
    let service =
        actix_web::test::init_service(crate::app(plain()).service(Endpoint::open("/open").get(open))).await;
    let request = actix_web::test::TestRequest::get().uri("/open").to_request();
    assert_eq!(
        actix_web::test::call_service(&service, request).await.status(),
        500
    );
}

struct Broken;

#[async_trait]
impl HealthCheck for Broken {
    async fn check(&self) -> Result<(), String> {
        Err("the secret host is away".into())
    }
}

#[actix_web::test]
async fn readiness_follows_the_checks_and_draining() {
    let mut api = plain();
    api.readiness = Arc::new(Readiness::new().with_check("database", Arc::new(Broken)));
    let reply = Call::get("/health/readiness").send(&api).await;
    assert_eq!(reply.status, 503);
    assert_eq!(
        reply.json(),
        serde_json::json!({"status": "unavailable", "checks": {"database": "unavailable"}})
    );
    assert_eq!(Call::get("/health").send(&api).await.status, 503);
    assert_eq!(
        Call::get("/health/liveness").send(&api).await.json(),
        serde_json::json!({"status": "ok"})
    );
    let api = plain();
    assert_eq!(
        Call::get("/health/readiness").send(&api).await.json(),
        serde_json::json!({"status": "ok"})
    );
    api.readiness.drain();
    let reply = Call::get("/health/readiness").send(&api).await;
    assert_eq!(
        (reply.status.as_u16(), reply.json()["status"].clone()),
        (503, "draining".into())
    );
    assert_eq!(Call::get("/health/liveness").send(&api).await.status, 200);
}

#[actix_web::test]
async fn there_are_pages_for_people_and_keys_for_machines() {
    let api = plain();
    let page = Call::get("/problems/stale_version").send(&api).await;
    assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert!(page.text.contains("412") && page.text.contains("Stale version"));
    assert_eq!(
        Call::get("/problems/%3Cscript%3E").send(&api).await.code(),
        "not_found"
    );
    assert!(
        Call::get("/problems")
            .send(&api)
            .await
            .text
            .contains("/problems/last_admin")
    );
    let docs = Call::get("/docs").send(&api).await;
    assert_eq!(
        (docs.status.as_u16(), docs.header("Location")),
        (307, Some("/docs/"))
    );
    assert!(Call::get("/docs/").send(&api).await.text.contains("swagger-ui"));
    let script = Call::get("/docs/swagger-initializer.js").send(&api).await;
    assert!(script.text.contains("/openapi.json"), "{}", script.text);
    let keys = Call::get("/.well-known/jwks.json").send(&api).await;
    assert_eq!(keys.header("Cache-Control"), Some("public, max-age=300"));
}

/// What was logged, one JSON object a line.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The log of this process. One thread's alone would miss what another thread was the first to log,
    /// because tracing remembers for each place in the code whether anybody listens.
    fn global() -> Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        let start = || {
            let log = Self::default();
            let writer = log.clone();
            let subscriber = tracing_subscriber::fmt()
                .json()
                .with_writer(move || writer.clone());
            tracing::subscriber::set_global_default(subscriber.finish()).unwrap();
            log
        };
        LOG.get_or_init(start).clone()
    }

    fn lines_of(&self, request_id: &str) -> Vec<Value> {
        let bytes = self.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines
            .filter(|line: &Value| line["span"]["request_id"] == request_id)
            .collect()
    }
}

#[actix_web::test]
async fn each_line_of_the_log_says_who_and_where_and_no_line_says_too_much() {
    let log = Log::global();
    let api = plain();
    let uri = format!("/api/v1/tasks?project_id={SOME_ID}&q=findme");
    Call::get(&uri)
        .bearer("member")
        .header("X-Request-ID", "log-1")
        .send(&api)
        .await;
    let body = r#"{"email":"ada@example.com","password":"findme","tenant_slug":"acme"}"#;
    Call::post("/api/v1/auth/login", body)
        .header("X-Request-ID", "log-2")
        .send(&api)
        .await;
    let lines = log.lines_of("log-1");
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in &lines {
        let span = &line["span"];
        assert_eq!(span["tenant_id"], "00000000-0000-0000-0000-000000000001");
        assert_eq!(span["user_id"], "00000000-0000-0000-0000-000000000001");
        assert_eq!(
            (&span["method"], &span["route"]),
            (&"GET".into(), &"/api/v1/tasks".into())
        );
    }
    // Callers bring it about; an ERROR is what is broken here.
    assert_eq!(lines[0]["level"], "INFO");
    assert!(
        lines[0]["fields"]["cause"]
            .as_str()
            .unwrap()
            .contains("the secret host is away")
    );
    assert_eq!(lines[1]["level"], "INFO");
    assert_eq!(
        (&lines[1]["fields"]["status"], &lines[1]["fields"]["code"]),
        (&503.into(), &"unavailable".into())
    );
    assert!(lines[1]["fields"]["duration_ms"].is_number());
    let measured = api.metrics().render(Audience::Everyone, Format::Text);
    assert!(
        measured.contains("tenantry_http_problems_total{code=\"unavailable\"} "),
        "{measured}"
    );
    let all = format!("{lines:?} {:?}", log.lines_of("log-2"));
    assert!(all.contains("/api/v1/auth/login"));
    for secret in ["findme", "ada@example.com", "project_id", "Bearer"] {
        assert!(!all.contains(secret), "{secret}");
    }
}
