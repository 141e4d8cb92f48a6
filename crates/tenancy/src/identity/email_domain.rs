//! Which addresses users of a tenant may have.

use tenantry_domain::identity::Email;
use tenantry_domain::kernel::{Invalid, StoreError};

use crate::Cx;
use crate::customization::product_settings::ALLOWED_EMAIL_DOMAINS;
use crate::customization::setting;

/// The domains of addresses that a tenant allows, as `security.allowed_email_domains` says; `None` when the list cannot be read, and then
/// no address is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AllowedDomains(Option<Vec<String>>);

impl AllowedDomains {
    /// Those of the context's tenant.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn of(cx: &Cx) -> Result<Self, StoreError> {
        let settings = &setting::configuration(cx).await?.settings;
        let domains = ALLOWED_EMAIL_DOMAINS.restriction_of(settings);
        let domains = domains.inspect_err(|error| tracing::error!("{error}; no address is allowed"));
        Ok(Self(domains.ok().map(Option::unwrap_or_default)))
    }

    /// Whether some domains are listed, so that others are not allowed.
    pub(crate) fn is_limited(&self) -> bool {
        self.0.as_ref().is_none_or(|domains| !domains.is_empty())
    }

    /// Makes sure that an address is of one of the domains; of a subdomain is not enough. Where no domain is listed every
    /// address is allowed. The detail does not list the domains, since callers without an account read it too.
    ///
    /// # Errors
    /// `domain_not_allowed` at `/email`.
    pub(crate) fn check(&self, email: &Email) -> Result<(), Invalid> {
        self.check_at(email, "/email")
    }

    /// The same for an address that the field at `pointer` stands for.
    ///
    /// # Errors
    /// `domain_not_allowed` at `pointer`.
    pub(crate) fn check_at(&self, email: &Email, pointer: &str) -> Result<(), Invalid> {
        let domain = email.as_str().rsplit_once('@').map(|(_, domain)| domain);
        let is_allowed = |listed: &Vec<String>| {
            listed.is_empty() || listed.iter().any(|listed| Some(listed.as_str()) == domain)
        };
        if self.0.as_ref().is_some_and(is_allowed) {
            return Ok(());
        }
        let detail = "the tenant does not allow addresses of this domain";
        Err(Invalid::one(pointer, "domain_not_allowed", detail))
    }

    /// The same for an address as the caller wrote it. One that is not valid is reported elsewhere.
    ///
    /// # Errors
    /// See [`AllowedDomains::check`].
    pub(crate) fn check_text(&self, email: &str) -> Result<(), Invalid> {
        Email::parse(email, "/email").map_or(Ok(()), |email| self.check(&email))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_of_a_listed_domain_and_not_below_or_beside_one() {
        let domains = AllowedDomains(Some(vec!["acme.example".into(), "globex.example".into()]));
        for (email, holds) in [
            ("ada@acme.example", true),
            ("Ada@ACME.example", true),
            ("ada@globex.example", true),
            ("ada@mail.acme.example", false),
            ("ada@notacme.example", false),
            ("acme.example@evil.example", false),
            ("ada@acme.example.evil.example", false),
        ] {
            assert_eq!(domains.check_text(email).is_ok(), holds, "{email}");
            assert!(
                AllowedDomains(Some(Vec::new())).check_text(email).is_ok(),
                "{email}"
            );
        }
    }
}
