use std::collections::BTreeMap;

use actix_web::{HttpResponse, http::header, web::ServiceConfig};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_domain::kernel::Patch;
use tenantry_tenancy::Cx;
use tenantry_tenancy::customization::security_policy;
use utoipa::ToSchema;

use crate::extract::etag::tag_of;
use crate::{
    Answer, Body, Ctx, Endpoint, IfMatch, IfNoneMatch,
    permission::{ManageSettings, ReadSettingHistory},
};

/// The security policy of a tenant. Each rule is the setting `security.<name>`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SecurityPolicy, examples(json!({
    "version": 3, "your_address": "203.0.113.7", "password_min_length": 14, "first_password_days": 7, "session_idle_minutes": 60, "session_max_days": 14,
    "sessions_per_user": 20, "mfa_required": "admins", "links_keep_factors": true, "session_end_step_up": false, "require_verified_email": true, "allow_tenant_switch": true,
    "preapprove_support_read": false,
    "allowed_email_domains": ["acme.example"], "allowed_networks": ["203.0.113.0/24", "2001:db8::/32"], "denied_networks": [], "alert_rules": {},
})))]
pub(crate) struct SecurityPolicyView {
    /// The version of the tenant's settings.
    version: i64,
    /// The address that this request comes from, as the server sees it.
    #[schema(required = true)]
    your_address: Option<String>,
    /// The rules, by name.
    #[serde(flatten)]
    #[schema(value_type = SecurityPolicyRules)]
    rules: BTreeMap<String, Value>,
}

/// The rules with the values that are in force, for the document: requests and answers have them beside the version.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[schema(as = SecurityPolicyRules)]
pub(crate) struct SecurityPolicyRules {
    /// The minimum length of new passwords, in characters.
    #[schema(minimum = 12, maximum = 64)]
    password_min_length: i64,
    /// For how many days a password works that an admin chose for a user, or that the server generated.
    #[schema(minimum = 1, maximum = 90)]
    first_password_days: i64,
    /// The idle timeout of sessions, in minutes.
    #[schema(minimum = 5, maximum = 43200)]
    session_idle_minutes: i64,
    /// The longest lifetime of sessions, in days from the login. The server's own maximum holds where it is shorter.
    #[schema(minimum = 1, maximum = 365)]
    session_max_days: i64,
    /// The maximum number of live sessions of a user.
    #[schema(minimum = 1, maximum = 1000)]
    sessions_per_user: i64,
    /// Which users need a second factor: `off`, `admins` or `everyone`.
    mfa_required: String,
    /// Whether links in mail keep second factors that were added less than 24 hours before.
    links_keep_factors: bool,
    /// Whether users give their second factor again, or log in again, before they end other sessions of theirs.
    session_end_step_up: bool,
    /// Whether only users with a verified e-mail address may log in.
    require_verified_email: bool,
    /// Whether users may switch here from another tenant without the password of this one.
    allow_tenant_switch: bool,
    /// Whether operators of the platform who ask for read access get it without an admin's approval.
    preapprove_support_read: bool,
    /// The domains that addresses of users may have; an empty list allows all.
    #[schema(max_items = 50)]
    allowed_email_domains: Vec<String>,
    /// The networks from which requests are taken, in CIDR notation; an empty list allows all.
    #[schema(max_items = 100)]
    allowed_networks: Vec<String>,
    /// The networks from which no requests are taken, also where `allowed_networks` allows them.
    #[schema(max_items = 100)]
    denied_networks: Vec<String>,
    /// What the tenant changes about the rules that find suspicious activity, as `PATCH /api/v1/security/rules` does.
    #[schema(value_type = Object)]
    alert_rules: Value,
}

/// New rules, by name. Null restores the inherited rule. An absent rule is unchanged.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ChangeSecurityPolicy, value_type = BTreeMap<String, Value>)]
pub(crate) struct ChangeSecurityPolicy(BTreeMap<String, Patch<Value>>);

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::at("/security/policy").get(read).patch(update));
}

/// Get the security policy
///
/// Returns the rules that hold, and the address that the request comes from. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/security/policy", operation_id = "get_security_policy", tag = "Settings",
    params(IfNoneMatch),
    responses((status = 200, description = "The rules that hold.", body = SecurityPolicyView, headers(("ETag")))),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn read(cx: Ctx<ReadSettingHistory>, seen: IfNoneMatch) -> Answer {
    let view = view(&cx, security_policy::get(&cx).await?);
    Ok(seen.answer_of(view.version, &view))
}

/// Update the security policy
///
/// A merge patch by rule: a value replaces the earlier one completely, null restores the inherited rule. Either all changes are made
/// or none. A change of the lists of networks applies to the next request of every session and API key, also to logins and to open
/// event streams; one that refuses the address it comes from is 422 `locks_out`. An admin who has a second factor gives it
/// recently. Minimum role: admin.
#[utoipa::path(
    patch, path = "/api/v1/security/policy", operation_id = "update_security_policy", tag = "Settings",
    params(IfMatch),
    request_body(content = ChangeSecurityPolicy, example = json!({
        "allowed_networks": ["203.0.113.0/24", "2001:db8::/32"], "session_max_days": 14, "mfa_required": null,
    })),
    responses(
        (status = 200, description = "The rules that hold now.", body = SecurityPolicyView, headers(("ETag"))),
    ),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["tenant_suspended", "403 mfa_required"]))),
)]
pub(crate) async fn update(
    cx: Ctx<ManageSettings>,
    when: IfMatch,
    body: Body<ChangeSecurityPolicy>,
) -> Answer {
    let view = view(&cx, security_policy::update(&cx, &when.0, &body.0.0).await?);
    let tag = tag_of(view.version, &view);
    Ok(HttpResponse::Ok().insert_header((header::ETAG, tag)).json(view))
}

fn view(cx: &Cx, (version, rules): (i64, BTreeMap<String, Value>)) -> SecurityPolicyView {
    SecurityPolicyView {
        version,
        your_address: cx.origin().address().map(|ip| ip.to_canonical().to_string()),
        rules,
    }
}
