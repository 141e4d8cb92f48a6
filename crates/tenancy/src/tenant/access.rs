//! Who is asking, and in which tenant.

use std::sync::Arc;

use serde_json::json;
use tenantry_domain::identity::{ApiKeyFormat, KeyRefusal, TokenError};
use tenantry_domain::kernel::{RequestId, StoreError, TenantId};
use tenantry_domain::tenant::{Admission, Denied, DomainName, Slug, TenantFacts, TenantSelector};

use crate::audit::refusal::{self, Refusal, RefusedAction, RefusedActor};
use crate::customization::security_policy;
use crate::identity::api_key;
use crate::{Cx, Origin, Tenancy};

/// How a request names its tenant apart from a credential, as the caller wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hints {
    /// `X-Tenant-ID`.
    pub id: Option<String>,
    /// `X-Tenant-Slug`.
    pub slug: Option<String>,
    /// The label before the base domain.
    pub subdomain: Option<String>,
    /// The host, where it may be a tenant's custom domain. One that is nobody's counts for nothing: servers are reached under names
    /// of the network too.
    pub domain: Option<DomainName>,
    /// A slug in the body, on the few endpoints that have one.
    pub body_slug: Option<String>,
}

/// By what a request's tenant was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolvedBy {
    /// The access token or API key.
    Credential,
    /// `X-Tenant-ID` or `X-Tenant-Slug`.
    Header,
    /// The host, below the base domain.
    Subdomain,
    /// The host, which the tenant has proven to be its own.
    CustomDomain,
    /// A slug in the body.
    Body,
}

/// Why a request was not let in.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The gate refused.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The request names no tenant.
    #[error("the request names no tenant")]
    TenantRequired,
    /// The request names two tenants.
    #[error("the request names another tenant than its credential")]
    Mismatch,
    /// The mismatch could not be recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Admits the bearer of a credential: an access token, or an API key of this application's environment. For services with HTTP
/// of their own; they hold callers to rates themselves. Tokens of operators with access to the tenant are refused: only the routes of
/// `tenantry-http` record what is asked for with them.
///
/// # Errors
/// [`Denied`]; a text that is neither is [`TokenError::Invalid`](tenantry_domain::identity::TokenError).
pub async fn admit(
    app: &Arc<Tenancy>,
    credential: &str,
    origin: &Origin,
    request: RequestId,
) -> Result<Admission, Denied> {
    let admission = if ApiKeyFormat::is_claimed(credential) {
        let presented = app.policy.api_keys.read(credential);
        let presented = presented.ok_or(Denied::ApiKey(KeyRefusal::Unknown))?;
        api_key::admit(app, &presented, origin, request).await?
    } else {
        let admission = app.ports.gate.bearer(credential, request).await?;
        if admission.scope.support_access().is_some() {
            return Err(TokenError::Invalid.into());
        }
        admission
    };
    check_address(app, &admission, origin).await?;
    Ok(admission)
}

/// Refuses an admission from an address that the security policy of the tenant does not allow, and records that.
///
/// # Errors
/// [`Denied::Address`]; those of the store.
pub async fn check_address(app: &Arc<Tenancy>, admission: &Admission, origin: &Origin) -> Result<(), Denied> {
    security_policy::check_address(app, &admission.scope, origin).await
}

/// The second half of admitting the bearer of an access token: a header or host that names another tenant is
/// refused and recorded in the security audit of the credential's tenant.
///
/// # Errors
/// [`AccessError::Mismatch`], [`AccessError::Store`].
pub async fn agree(
    app: &Arc<Tenancy>,
    admission: &Admission,
    hints: &Hints,
    origin: &Origin,
) -> Result<(), AccessError> {
    if is_named(app, hints, &admission.tenant).await? {
        return Ok(());
    }
    let cx = Cx::new(Arc::clone(app), admission.scope.clone(), origin.clone());
    record_mismatch(&cx, hints).await?;
    Err(AccessError::Mismatch)
}

/// Compares the tenant that a second access token of the request was issued to with that of the first. A different tenant is
/// refused and recorded like a header that names one, also when the token has expired. What is no token of ours names none.
///
/// # Errors
/// [`AccessError::Mismatch`], [`AccessError::Store`].
pub async fn agree_with_token(
    app: &Arc<Tenancy>,
    admission: &Admission,
    token: &str,
    origin: &Origin,
) -> Result<(), AccessError> {
    let Some(named) = app.ports.gate.issued_to(token) else {
        return Ok(());
    };
    let hints = Hints {
        id: Some(named.to_string()),
        ..Hints::default()
    };
    agree(app, admission, &hints, origin).await
}

/// Admits somebody without a credential to the tenant that headers, host or body name, as far as login goes.
///
/// # Errors
/// [`AccessError`].
pub async fn select_tenant(
    app: &Tenancy,
    hints: &Hints,
    request: RequestId,
) -> Result<(Admission, ResolvedBy), AccessError> {
    let of_domain = of_domain(app, hints).await?;
    let selected = hints.selector(of_domain.as_ref())?;
    let (selector, resolved_by) = selected.ok_or(AccessError::TenantRequired)?;
    let admission = app.ports.gate.guest(&selector, request).await?;
    match &hints.body_slug {
        Some(slug) if slug != admission.tenant.slug.as_str() => Err(AccessError::Mismatch),
        _ => Ok((admission, resolved_by)),
    }
}

/// Whether everything that the request names a tenant with names this one, a custom domain included.
///
/// # Errors
/// Those of the store.
pub async fn is_named(app: &Tenancy, hints: &Hints, tenant: &TenantFacts) -> Result<bool, StoreError> {
    if !hints.agree_with(tenant) {
        return Ok(false);
    }
    let of_domain = of_domain(app, hints).await?;
    Ok(of_domain.is_none_or(|found| found.id == tenant.id))
}

/// The tenant whose custom domain the request is for.
async fn of_domain(app: &Tenancy, hints: &Hints) -> Result<Option<TenantFacts>, StoreError> {
    match &hints.domain {
        Some(domain) => app.ports.gate.find(&TenantSelector::Domain(domain.clone())).await,
        None => Ok(None),
    }
}

/// Records in the tenant of the context that a request named another one.
///
/// # Errors
/// Those of the store.
pub async fn record_mismatch(cx: &Cx, hints: &Hints) -> Result<(), StoreError> {
    let refusal = Refusal {
        action: RefusedAction::OtherTenant,
        target_type: "tenant",
        target: Some(cx.scope().tenant().uuid()),
        actor: RefusedActor::of(cx.scope()),
        ip: cx.origin().ip.clone(),
        details: json!({
            "tenant_id": hints.id, "tenant_slug": hints.slug, "subdomain": hints.subdomain, "domain": hints.domain,
        }),
    };
    refusal::record(cx, refusal).await
}

impl Hints {
    /// Whether every hint but the custom domain, which only the directory knows, names this tenant. A hint that names nobody disagrees as well: what a credential may
    /// see of other tenants is nothing, not even whether they exist.
    pub fn agree_with(&self, tenant: &TenantFacts) -> bool {
        let same_id = |id: &String| id.parse::<TenantId>().is_ok_and(|id| id == tenant.id);
        let same_slug = |slug: &String| slug == tenant.slug.as_str();
        let same_subdomain =
            |label: &String| tenant.subdomain.as_ref().is_some_and(|own| own.as_str() == label);
        self.id.as_ref().is_none_or(same_id)
            && self.slug.as_ref().is_none_or(same_slug)
            && self.subdomain.as_ref().is_none_or(same_subdomain)
            && self.body_slug.as_ref().is_none_or(same_slug)
    }

    /// The first hint in order of precedence, of which a custom domain is one when it leads to a tenant.
    fn selector(
        &self,
        of_domain: Option<&TenantFacts>,
    ) -> Result<Option<(TenantSelector, ResolvedBy)>, Denied> {
        if let Some(id) = &self.id {
            let id = id.parse().map_err(|_| Denied::TenantNotFound)?;
            return Ok(Some((TenantSelector::Id(id), ResolvedBy::Header)));
        }
        if let Some(slug) = &self.slug {
            return Ok(Some((
                TenantSelector::Slug(parse_slug(slug)?),
                ResolvedBy::Header,
            )));
        }
        if let Some(label) = &self.subdomain {
            return Ok(Some((
                TenantSelector::Subdomain(parse_slug(label)?),
                ResolvedBy::Subdomain,
            )));
        }
        if let Some(tenant) = of_domain {
            return Ok(Some((TenantSelector::Id(tenant.id), ResolvedBy::CustomDomain)));
        }
        if let Some(slug) = &self.body_slug {
            return Ok(Some((TenantSelector::Slug(parse_slug(slug)?), ResolvedBy::Body)));
        }
        Ok(None)
    }
}

fn parse_slug(text: &str) -> Result<Slug, Denied> {
    Slug::parse(text).ok_or(Denied::TenantNotFound)
}
