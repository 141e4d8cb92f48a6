//! How a request names its tenant apart from a credential.

use actix_web::{
    HttpRequest,
    http::{header::HeaderMap, uri::Authority},
};
use tenantry_domain::kernel::ErrorCode;
use tenantry_domain::tenant::{DomainName, Slug};
use tenantry_tenancy::tenant::access::Hints;

use crate::{Api, ApiError};

/// The hints in headers and host.
///
/// # Errors
/// `invalid_request` when a header is there twice or is not text: then nobody can tell what it names.
pub(crate) fn read(request: &HttpRequest, api: &Api) -> Result<Hints, ApiError> {
    let has_domains = api.app.policy.domains.edge.is_some();
    of_request(request, api.config.base_domain.as_deref(), has_domains)
}

fn of_request(
    request: &HttpRequest,
    base_domain: Option<&str>,
    has_domains: bool,
) -> Result<Hints, ApiError> {
    let headers = request.headers();
    let host = host(request)?;
    let subdomain = host
        .zip(base_domain)
        .and_then(|(host, base)| subdomain(host, base));
    let domain = host.filter(|_| has_domains).and_then(DomainName::of_host);
    let is_own = |domain: &DomainName| base_domain.is_some_and(|base| domain.is_within(base));
    Ok(Hints {
        domain: domain.filter(|domain| !is_own(domain)),
        id: single(headers, "X-Tenant-ID")?.map(str::to_owned),
        slug: single(headers, "X-Tenant-Slug")?.map(str::to_owned),
        subdomain,
        body_slug: None,
    })
}

/// The host that a request is for: that of its target, where it has one (RFC 9112 section 3.2.2), else that of `Host`.
///
/// # Errors
/// `invalid_request` when `Host` is there twice or is no host, whether or not it counts.
pub(crate) fn host(request: &HttpRequest) -> Result<Option<&str>, ApiError> {
    let header = single(request.headers(), "Host")?;
    let is_host = |host: &str| host.is_empty() || (!host.contains('@') && host.parse::<Authority>().is_ok());
    if header.is_some_and(|host| !is_host(host)) {
        return Err(ApiError::new(ErrorCode::InvalidRequest)
            .with_detail("Host is not a host name with an optional port."));
    }
    Ok(request.uri().authority().map(Authority::as_str).or(header))
}

/// The value of a header that may be there once.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, ApiError> {
    let refuse = |what: &str| ApiError::new(ErrorCode::InvalidRequest).with_detail(format!("{name} {what}."));
    let mut values = headers.get_all(name);
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(refuse("is there more than once"));
    }
    value
        .to_str()
        .map(|text| Some(text.trim()))
        .map_err(|_| refuse("has characters that are not ASCII"))
}

/// What a host has before the base domain, when that may name a tenant. More than one label names nobody,
/// which is for the directory to say.
fn subdomain(host: &str, base: &str) -> Option<String> {
    let host = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |(h, _)| h);
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let label = host.strip_suffix(&base.to_ascii_lowercase())?.strip_suffix('.')?;
    // A host of the product itself is nobody's tenant.
    let reserved = Slug::parse(label).is_some_and(|slug| slug.is_reserved());
    (!reserved).then(|| label.to_owned())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn a_label_below_the_base_domain_names_a_tenant() {
        let of = |host: &str| subdomain(host, "Example.com");
        assert_eq!(of("acme.example.com"), Some("acme".into()));
        assert_eq!(of("ACME.EXAMPLE.COM:8443"), Some("acme".into()));
        assert_eq!(of("acme.example.com."), Some("acme".into()));
        assert_eq!(of("a.b.example.com"), Some("a.b".into()));
        for nobody in [
            "example.com",
            "example.com:80",
            "www.example.com",
            "API.example.com",
            "app.example.com",
            "admin.example.com",
            "acme.example.org",
            "notexample.com",
            "[::1]:8080",
            "127.0.0.1:8080",
            "",
        ] {
            assert_eq!(of(nobody), None, "{nobody}");
        }
    }

    #[test]
    fn the_host_of_the_target_wins_over_the_header() {
        let of = |uri: &str, header: &str| {
            let request = TestRequest::with_uri(uri)
                .insert_header(("Host", header))
                .to_http_request();
            host(&request)
                .map(|host| host.map(str::to_owned))
                .map_err(|error| error.code())
        };
        let whole = "http://acme.example.com/api/v1/branding";
        assert_eq!(
            of(whole, "globex.example.com"),
            Ok(Some("acme.example.com".into()))
        );
        assert_eq!(
            of("/", "globex.example.com:80"),
            Ok(Some("globex.example.com:80".into()))
        );
        assert_eq!(of("/", "[::1]:8080"), Ok(Some("[::1]:8080".into())));
        assert_eq!(of("/", ""), Ok(Some(String::new())));
        for nonsense in ["a b", "a/b", "ada@example.com", "http://a"] {
            assert_eq!(of("/", nonsense), Err(ErrorCode::InvalidRequest), "{nonsense}");
            assert_eq!(of(whole, nonsense), Err(ErrorCode::InvalidRequest), "{nonsense}");
        }
    }

    #[test]
    fn headers_are_hints_and_may_not_be_doubled() {
        let request = TestRequest::default()
            .insert_header(("X-Tenant-Slug", "acme"))
            .to_http_request();
        let hints = of_request(&request, None, true).unwrap();
        assert_eq!(
            hints,
            Hints {
                slug: Some("acme".into()),
                ..Hints::default()
            }
        );
        for name in ["X-Tenant-ID", "X-Tenant-Slug"] {
            let request = TestRequest::default()
                .append_header((name, "a"))
                .append_header((name, "b"));
            let error = of_request(&request.to_http_request(), None, true).unwrap_err();
            assert_eq!(error.code(), ErrorCode::InvalidRequest);
        }
    }
}
