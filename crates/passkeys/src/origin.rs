//! Which origins belong to a relying party.

use url::{Host, Url};

/// Whether a text is the name of a host in lower case, and more than a top-level domain unless it is `localhost`.
pub(crate) fn is_domain(text: &str) -> bool {
    let of_host = |text: &str| matches!(Host::parse(text), Ok(Host::Domain(name)) if name == text);
    let is_long_enough = text == "localhost" || text.trim_matches('.').contains('.');
    of_host(text) && is_long_enough && !text.starts_with('.') && !text.ends_with('.')
}

/// Checks that a text is an origin as browsers write it, secure, and of the relying party.
pub(crate) fn check(text: &str, id: &str) -> Result<(), &'static str> {
    let url = Url::parse(text).map_err(|_| "is not an origin such as https://app.example.com")?;
    if url.origin().ascii_serialization() != text {
        return Err(
            "must be scheme, host and port as browsers write them, for example https://app.example.com",
        );
    }
    let host = url.host_str().unwrap_or_default();
    if host != id && !host.ends_with(&format!(".{id}")) {
        return Err("must have auth.passkeys.rp_id or a subdomain of it as its host");
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if host == "localhost" || host.ends_with(".localhost") => Ok(()),
        _ => Err("must begin with https://, or with http:// where the host is localhost"),
    }
}
