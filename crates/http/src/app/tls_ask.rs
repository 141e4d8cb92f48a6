//! The question of a proxy that gets certificates on demand: may it get one for this host?

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::{HttpRequest, HttpResponse, http::header, web::Query};
use tenantry_tenancy::{Tenancy, tenant::domain_ask};

/// How many questions are answered in a second. A proxy asks once for each certificate, so this is far more than it needs, and few
/// enough that clients which connect with made-up names cost the database little.
const PER_SECOND: u32 = 100;

/// Bounds how many questions are answered.
#[derive(Debug, Default)]
pub struct AskGate(Mutex<Option<(Instant, u32)>>);

impl AskGate {
    fn admits(&self) -> bool {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (since, asked) = window
            .filter(|(since, _)| now.duration_since(*since) < Duration::from_secs(1))
            .unwrap_or((now, 0));
        *window = Some((since, asked.saturating_add(1)));
        asked < PER_SECOND
    }
}

/// Answers `?domain=`: 200 when requests for the host are served here, 404 when they are not. It is for a listener that clients of the
/// API do not reach.
pub async fn answer(app: &Tenancy, gate: &AskGate, request: &HttpRequest) -> HttpResponse {
    let Some(host) = asked(request.query_string()) else {
        return HttpResponse::BadRequest()
            .body("domain is required, once: /tls/ask?domain=app.example.com\n");
    };
    if !gate.admits() {
        return HttpResponse::TooManyRequests()
            .insert_header((header::RETRY_AFTER, "1"))
            .body("too many questions\n");
    }
    match domain_ask::is_served(app, &host).await {
        Ok(true) => HttpResponse::Ok().body("served\n"),
        Ok(false) => HttpResponse::NotFound().body("not served\n"),
        Err(error) => {
            tracing::error!(%error, "whether a host is served is not known");
            HttpResponse::ServiceUnavailable().body("not known\n")
        }
    }
}

/// The one value of `domain`.
fn asked(query: &str) -> Option<String> {
    let pairs = Query::<Vec<(String, String)>>::from_query(query)
        .ok()?
        .into_inner();
    let mut hosts = pairs.into_iter().filter(|(name, _)| name == "domain");
    let (_, host) = hosts.next()?;
    (hosts.next().is_none() && !host.is_empty()).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_host_is_asked_about() {
        assert_eq!(asked("domain=app.acme.com"), Some("app.acme.com".into()));
        assert_eq!(asked("x=1&domain=a%2Eb"), Some("a.b".into()));
        for none in ["", "domain=", "domain=a.b&domain=c.d", "host=a.b"] {
            assert_eq!(asked(none), None, "{none}");
        }
    }

    #[test]
    fn questions_are_bounded() {
        let gate = AskGate::default();
        let admitted = (0..PER_SECOND + 50).filter(|_| gate.admits()).count();
        assert_eq!(admitted, PER_SECOND as usize);
    }
}
