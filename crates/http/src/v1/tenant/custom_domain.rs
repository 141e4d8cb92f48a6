use actix_web::web::ServiceConfig;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::kernel::DomainId;
use tenantry_domain::tenant::{CheckResult, CustomDomain, DomainState, ReleaseReason};
use tenantry_tenancy::Cx;
use tenantry_tenancy::tenant::custom_domain;
use utoipa::ToSchema;

use crate::extract::page::{NoParams, PageParams};
use crate::v1::kernel::schema;
use crate::{
    Answer, Body, Ctx, Endpoint, Id, IdempotencyKey, IfMatch, IfNoneMatch, PageView, Paged, RequireFeature,
    created, entity, feature, no_content,
    permission::{ManageDomains, ReadDomains},
};

/// A custom domain of the tenant, with the DNS records that it needs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CustomDomain, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a13", "domain": "portal.acme.com", "state": "pending",
    "records": [
        {"type": "TXT", "name": "_tenantry-verify.portal.acme.com", "value": "tenant-verification=s3Y0cU1Qm0fWv0b0y3hKZ1m8xJr7o9vX2kTgq5dWb4E"},
        {"type": "CNAME", "name": "portal.acme.com", "value": "edge.example.com"},
    ],
    "last_check": null, "claimed_until": "2026-02-07T12:00:00Z", "verified_at": null, "activated_at": null, "failing_since": null,
    "release_at": null, "released_at": null, "release_reason": null,
    "created_at": "2026-01-31T12:00:00Z", "updated_at": "2026-01-31T12:00:00Z", "version": 1,
})))]
pub(crate) struct CustomDomainView {
    #[schema(value_type = Uuid)]
    id: DomainId,
    /// The host name, in lower case and Punycode.
    domain: String,
    #[schema(value_type = schema::DomainState)]
    state: DomainState,
    /// The DNS records to set. The TXT record must stay; the domain may have the addresses of the CNAME's target in place of the CNAME.
    /// A registered name such as `acme.com` cannot be a CNAME, so there is none among its records: give it the addresses of the edge.
    records: Vec<DnsRecordView>,
    /// What the last check found.
    #[schema(required = true)]
    last_check: Option<DomainCheckView>,
    /// Until when a pending claim can be proven.
    claimed_until: DateTime<Utc>,
    /// When the TXT record was found first.
    #[schema(required = true)]
    verified_at: Option<DateTime<Utc>>,
    /// Since when requests for the domain lead to the tenant.
    #[schema(required = true)]
    activated_at: Option<DateTime<Utc>>,
    /// Since when the TXT record is missing.
    #[schema(required = true)]
    failing_since: Option<DateTime<Utc>>,
    /// When a failing domain is released unless the TXT record comes back.
    #[schema(required = true)]
    release_at: Option<DateTime<Utc>>,
    /// When the domain was released.
    #[schema(required = true)]
    released_at: Option<DateTime<Utc>>,
    #[schema(value_type = Option<schema::DomainReleaseReason>, required = true)]
    release_reason: Option<ReleaseReason>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// The number of its versions; the `ETag`.
    version: i64,
}

/// A DNS record to set.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DnsRecord)]
pub(crate) struct DnsRecordView {
    /// `TXT` or `CNAME`.
    r#type: &'static str,
    name: String,
    value: String,
}

/// What a check of the TXT record found.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DomainCheck)]
pub(crate) struct DomainCheckView {
    at: DateTime<Utc>,
    #[schema(value_type = Option<schema::DomainCheckResult>, required = true)]
    result: Option<CheckResult>,
}

/// A domain to claim.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewCustomDomain, examples(json!({"domain": "portal.acme.com"})))]
pub(crate) struct NewCustomDomainBody {
    /// A host name, in Unicode or Punycode: no address, port, path or wildcard.
    #[schema(min_length = 4, max_length = 1000)]
    domain: String,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/tenant/domains").get(list).post(claim))
        .service(Endpoint::at("/tenant/domains/{id}").get(read).delete(delete))
        .service(Endpoint::at("/tenant/domains/{id}/verify").post(verify));
}

/// List custom domains
///
/// Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/tenant/domains", operation_id = "list_domains", tag = "Tenant",
    params(PageParams),
    responses((status = 200, description = "The domains, newest first.", body = PageView<CustomDomainView>, headers(("Link")))),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn list(cx: Ctx<ReadDomains>, query: Paged<NoParams>) -> Answer {
    let page = custom_domain::list(&cx, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(|domain| view(edge(&cx), domain))))
}

/// Claim a custom domain
///
/// Set the DNS records of the answer, then verify the domain. A claim keeps no other tenant from the domain: the tenant that proves it
/// holds it. A claim that is not proven within 14 days is released. Needs the plan feature `custom_domain`; the plan limits how many
/// domains a tenant has. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/tenant/domains", operation_id = "claim_domain", tag = "Tenant",
    params(IdempotencyKey), request_body = NewCustomDomainBody,
    responses((status = 201, description = "The domain.", body = CustomDomainView, headers(("ETag"), ("Location")))),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["tenant_suspended", "plan_feature_required", "plan_limit_reached", "domains_unavailable", "conflict"]))),
)]
pub(crate) async fn claim(
    cx: Ctx<ManageDomains>,
    _plan: RequireFeature<feature::CustomDomain>,
    key: IdempotencyKey,
    body: Body<NewCustomDomainBody>,
) -> Answer {
    let claim = async |cx: &Cx| custom_domain::claim(cx, &body.0.domain).await;
    let edge = edge(&cx);
    key.once(&cx, claim, move |domain: CustomDomain| {
        let location = format!("/api/v1/tenant/domains/{}", domain.id);
        created(&location, Some(domain.version), &view(edge.clone(), domain))
    })
    .await
}

/// Get a custom domain
///
/// Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/tenant/domains/{id}", operation_id = "get_domain", tag = "Tenant",
    params(("id" = Uuid, Path), IfNoneMatch),
    responses((status = 200, description = "The domain.", body = CustomDomainView, headers(("ETag")))),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn read(cx: Ctx<ReadDomains>, id: Id<DomainId>, seen: IfNoneMatch) -> Answer {
    let domain = custom_domain::get(&cx, id.0).await?;
    Ok(seen.answer(domain.version, &view(edge(&cx), domain)))
}

/// Verify a custom domain
///
/// Looks for the TXT record, and for where the domain leads to. The answer is 200 whatever was found: see `state` and `last_check`. A
/// domain can be checked every 10 seconds; the server checks each domain daily. 409 when the domain is proven and another tenant
/// holds it. Needs the plan feature `custom_domain`. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/tenant/domains/{id}/verify", operation_id = "verify_domain", tag = "Tenant",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "The domain.", body = CustomDomainView, headers(("ETag")))),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["tenant_suspended", "plan_feature_required", "domains_unavailable", "conflict"]))),
)]
pub(crate) async fn verify(
    cx: Ctx<ManageDomains>,
    _plan: RequireFeature<feature::CustomDomain>,
    id: Id<DomainId>,
) -> Answer {
    let domain = custom_domain::verify(&cx, id.0).await?;
    Ok(entity(domain.version, &view(edge(&cx), domain)))
}

/// Delete a custom domain
///
/// Requests for the domain lead to no tenant from now on. Minimum role: admin.
#[utoipa::path(
    delete, path = "/api/v1/tenant/domains/{id}", operation_id = "delete_domain", tag = "Tenant",
    params(("id" = Uuid, Path), IfMatch),
    responses((status = 204, description = "The domain is deleted.")),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["tenant_suspended"]))),
)]
pub(crate) async fn delete(cx: Ctx<ManageDomains>, id: Id<DomainId>, when: IfMatch) -> Answer {
    custom_domain::delete(&cx, id.0, &when.0).await?;
    Ok(no_content())
}

/// The name that custom domains must lead to.
fn edge(cx: &Cx) -> Option<String> {
    cx.app().policy.domains.edge.clone()
}

fn view(edge: Option<String>, domain: CustomDomain) -> CustomDomainView {
    let record = |r#type, name: String, value: String| DnsRecordView { r#type, name, value };
    let proof = record("TXT", domain.txt_name(), domain.txt_value());
    let route = edge.filter(|_| !domain.domain.is_apex());
    let route = route.map(|edge| record("CNAME", domain.domain.to_string(), edge));
    CustomDomainView {
        id: domain.id,
        domain: domain.domain.to_string(),
        state: domain.state,
        records: std::iter::once(proof).chain(route).collect(),
        last_check: domain.checked_at.map(|at| DomainCheckView {
            at,
            result: domain.check_result,
        }),
        claimed_until: domain.claimed_until,
        verified_at: domain.verified_at,
        activated_at: domain.activated_at,
        failing_since: domain.failing_since,
        release_at: domain.failing_since.map(|since| since + CustomDomain::GRACE),
        released_at: domain.released_at,
        release_reason: domain.release_reason,
        created_at: domain.created_at,
        updated_at: domain.updated_at,
        version: domain.version,
    }
}
