use std::borrow::Cow;
use std::collections::BTreeMap;

use actix_web::{HttpResponse, http::header, web::ServiceConfig};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_domain::kernel::Patch;
use tenantry_domain::security::{AlertAction, RULES, Rule, RuleTerms, Severity};
use tenantry_tenancy::security::rule::{self, RuleInForce};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::extract::etag::tag_of;
use crate::{
    Answer, Body, Ctx, Endpoint, IfMatch, IfNoneMatch,
    permission::{ManageSettings, ReadAlerts},
};

/// The rules that find suspicious activity, with the terms that are in force.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SecurityRules)]
pub(crate) struct RulesView {
    /// The version of the tenant's settings.
    version: i64,
    rules: Vec<RuleView>,
}

/// A rule that finds suspicious activity.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SecurityRule, examples(json!({
    "id": "failed_logins_account", "about": "Wrong passwords or codes were given for one account.", "severity": "medium",
    "enabled": true, "threshold": 5, "window_minutes": 15, "action": "none", "may_act": false, "changed": false,
})))]
pub(crate) struct RuleView {
    id: &'static str,
    /// What it counts.
    about: &'static str,
    #[schema(value_type = String, pattern = "^(low|medium|high)$")]
    severity: Severity,
    enabled: bool,
    /// From how many on within the window it raises an alert.
    #[schema(minimum = 1, maximum = 10_000_000)]
    threshold: u32,
    #[schema(minimum = 1, maximum = 1440)]
    window_minutes: u32,
    /// What is done to the user: `none`, `step_up` (sensitive requests need the second factor again; the sessions of a user without a factor end) or `end_sessions`.
    #[schema(value_type = String, pattern = "^(none|step_up|end_sessions)$")]
    action: AlertAction,
    /// Whether the rule may have an action. Rules that callers without a credential can cause may not.
    may_act: bool,
    /// Whether the tenant has changed it.
    changed: bool,
}

/// Changes of rules, by name. Null restores the operator's terms. An absent rule or term is unchanged.
#[derive(Debug, Deserialize)]
pub(crate) struct ChangeRules(BTreeMap<String, Patch<Value>>);

impl ToSchema for ChangeRules {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("ChangeSecurityRules")
    }
}

impl PartialSchema for ChangeRules {
    fn schema() -> RefOr<Schema> {
        let about = "Changes of rules, by name. Null restores the operator's terms. An absent rule or term is unchanged.";
        let rules = RULES
            .iter()
            .fold(closed_object(), |all, rule| all.property(rule.id, terms_of(rule)));
        Schema::from(rules.description(Some(about))).into()
    }
}

/// The terms of a rule as a patch writes them: each may be null.
fn terms_of(rule: &Rule) -> ObjectBuilder {
    let nullable = |kind| ObjectBuilder::new().schema_type(SchemaType::from_iter([kind, Type::Null]));
    let number = |most: u32| nullable(Type::Integer).minimum(Some(1)).maximum(Some(most));
    let terms = closed_object()
        .schema_type(SchemaType::from_iter([Type::Object, Type::Null]))
        .description(Some(rule.about))
        .property("enabled", nullable(Type::Boolean))
        .property("threshold", number(RuleTerms::MOST))
        .property("window_minutes", number(RuleTerms::LONGEST));
    if !rule.may_act() {
        return terms;
    }
    let actions = AlertAction::ALL.iter().map(|action| Value::from(action.as_str()));
    let action = nullable(Type::String).enum_values(Some(actions.chain([Value::Null])));
    terms.property("action", action)
}

fn closed_object() -> ObjectBuilder {
    let nothing_else = AdditionalProperties::<Schema>::FreeForm(false);
    ObjectBuilder::new().additional_properties(Some(nothing_else))
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::at("/security/rules").get(list).patch(update));
}

/// List the rules of suspicious activity
///
/// Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/security/rules", operation_id = "list_security_rules", tag = "Security alerts",
    params(IfNoneMatch),
    responses((status = 200, description = "The rules, by name.", body = RulesView, headers(("ETag")))),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn list(cx: Ctx<ReadAlerts>, seen: IfNoneMatch) -> Answer {
    let view = view(rule::list(&cx).await?);
    Ok(seen.answer_of(view.version, &view))
}

/// Change rules of suspicious activity
///
/// A merge patch by rule and term: `enabled`, `threshold`, `window_minutes`, and `action` of rules that may have one. It changes the setting
/// `security.alert_rules`. An admin who has a second factor gives it recently. Minimum role: admin.
#[utoipa::path(
    patch, path = "/api/v1/security/rules", operation_id = "update_security_rules", tag = "Security alerts",
    params(IfMatch),
    request_body(content = ChangeRules, example = json!({
        "failed_logins_account": {"threshold": 10}, "new_network_login": {"enabled": false}, "mass_reading": null,
    })),
    responses((status = 200, description = "The rules that hold now.", body = RulesView, headers(("ETag")))),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["tenant_suspended", "403 mfa_required"]))),
)]
pub(crate) async fn update(cx: Ctx<ManageSettings>, when: IfMatch, body: Body<ChangeRules>) -> Answer {
    let view = view(rule::update(&cx, &when.0, &body.0.0).await?);
    let tag = tag_of(view.version, &view);
    Ok(HttpResponse::Ok().insert_header((header::ETAG, tag)).json(view))
}

fn view((version, rules): (i64, Vec<RuleInForce>)) -> RulesView {
    let rules = rules.into_iter().map(RuleView::from).collect();
    RulesView { version, rules }
}

impl From<RuleInForce> for RuleView {
    fn from(in_force: RuleInForce) -> Self {
        let RuleInForce {
            rule,
            terms,
            is_changed,
        } = in_force;
        Self {
            id: rule.id,
            about: rule.about,
            severity: rule.severity,
            enabled: terms.enabled,
            threshold: terms.threshold,
            window_minutes: terms.window_minutes,
            action: terms.action,
            may_act: rule.may_act(),
            changed: is_changed,
        }
    }
}
