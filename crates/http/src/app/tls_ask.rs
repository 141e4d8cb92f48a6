//! The question of a proxy that gets certificates on demand: may it get one for this host?

use std::sync::Arc;

use actix_web::{HttpRequest, HttpResponse, web::Query};
use tenantry_tenancy::Tenancy;
use tenantry_tenancy::tenant::domain_ask;

/// Answers `?domain=`: 200 when requests for the host are served here, 404 when they are not. It is for a listener that clients of the
/// API do not reach.
pub async fn answer(app: &Arc<Tenancy>, request: &HttpRequest) -> HttpResponse {
    let Some(host) = asked(request.query_string()) else {
        return HttpResponse::BadRequest()
            .body("domain is required, once: /tls/ask?domain=app.example.com\n");
    };
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
}
