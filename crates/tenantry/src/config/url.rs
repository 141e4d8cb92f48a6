use super::{ConfigurationError, Profile, Secret};

/// Passwords that people leave in place.
const WEAK: [&str; 12] = [
    "admin",
    "changeme",
    "change-me",
    "default",
    "demo-password",
    "password",
    "postgres",
    "root",
    "secret",
    "tenantry",
    "tenantry_app",
    "test",
];

/// Refuses a URL that is missing or, outside of development, has a password that anybody would guess.
pub fn check_url(key: &'static str, url: &Secret, profile: Profile) -> Result<(), ConfigurationError> {
    if url.is_empty() {
        return Err(ConfigurationError::invalid(key, "a PostgreSQL URL is required"));
    }
    let rest = url
        .reveal()
        .strip_prefix("postgres://")
        .or_else(|| url.reveal().strip_prefix("postgresql://"));
    let rest = rest.ok_or_else(|| ConfigurationError::invalid(key, "must begin with postgres://"))?;
    let user = rest
        .split('@')
        .next()
        .filter(|_| rest.contains('@'))
        .unwrap_or_default();
    let password = user.split_once(':').map(|(_, password)| password);
    match (profile, password) {
        (Profile::Production, Some(password)) if WEAK.contains(&password) || password.len() < 12 => Err(
            ConfigurationError::invalid(key, "the password is a default or shorter than 12 characters"),
        ),
        (Profile::Production | Profile::Development, _) => Ok(()),
    }
}

/// Whether each of these URLs of Redis leads to this machine, or over TLS with a verified certificate. An empty one leads
/// nowhere.
pub(super) fn are_protected(urls: &str) -> bool {
    urls.split(',').all(|url| is_protected(url.trim()))
}

fn is_protected(url: &str) -> bool {
    let Ok(parsed) = url::Url::parse(url) else {
        // What is wrong with it is said where it is read.
        return true;
    };
    let local = match parsed.host() {
        Some(url::Host::Domain(name)) => {
            name.eq_ignore_ascii_case("localhost")
                || name
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|address| address.to_canonical().is_loopback())
        }
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => std::net::IpAddr::V6(address).to_canonical().is_loopback(),
        // A path of a Unix socket.
        None => true,
    };
    let verified = matches!(parsed.scheme(), "rediss" | "valkeys") && parsed.fragment() != Some("insecure");
    local || verified
}
