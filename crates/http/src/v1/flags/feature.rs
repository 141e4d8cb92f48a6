use std::str::FromStr;

use actix_web::{HttpResponse, web::ServiceConfig};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_domain::flags::{Explanation, FlagType, Lifecycle};
use tenantry_domain::kernel::ParseIdError;
use tenantry_tenancy::flags::flag::{self, Feature};
use utoipa::ToSchema;

use crate::{
    Answer, Body, Ctx, Endpoint, Id, IfMatch, PageView, entity, no_content,
    permission::{ExplainFeatures, ManageFeatures, ReadFeatures},
    v1::kernel::schema,
};

/// The key of a flag in a path.
#[derive(Debug, Clone)]
pub(crate) struct FlagKey(pub String);

impl FromStr for FlagKey {
    type Err = ParseIdError;

    /// What is too long for a key is the key of nothing.
    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        if text.len() <= 64 {
            Ok(Self(text.to_owned()))
        } else {
            Err(ParseIdError)
        }
    }
}

/// A feature flag as evaluated for the caller.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Feature, examples(json!({
    "key": "new-checkout", "description": "The checkout on one page", "type": "boolean",
    "variants": {"off": false, "on": true}, "value": true, "variant": "on", "reason": "SPLIT", "level": "global",
    "lifecycle": "active", "overridable": true, "override": null,
})))]
pub(crate) struct FeatureView {
    key: String,
    description: String,
    #[serde(rename = "type")]
    #[schema(value_type = schema::FlagType)]
    kind: FlagType,
    /// The value of each variant, by name.
    #[schema(value_type = Object)]
    variants: Value,
    /// The value for the caller.
    #[schema(value_type = Value)]
    value: Value,
    /// The name of the variant.
    variant: String,
    #[schema(value_type = schema::FlagReason)]
    reason: &'static str,
    #[schema(value_type = schema::Level)]
    level: &'static str,
    #[schema(value_type = schema::Lifecycle)]
    lifecycle: Lifecycle,
    /// Whether an admin may override the flag for the tenant.
    overridable: bool,
    /// The override of the tenant.
    #[serde(rename = "override")]
    #[schema(required = true)]
    chosen: Option<OverrideView>,
}

/// An override of a feature flag by a tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeatureOverride)]
pub(crate) struct OverrideView {
    variant: String,
    updated_at: chrono::DateTime<chrono::Utc>,
    /// The number of its versions; the `ETag`.
    version: i64,
}

/// The variant for the tenant.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChooseVariant, examples(json!({"variant": "on"})))]
pub(crate) struct ChooseVariant {
    /// One of the flag's variants.
    variant: String,
}

/// How a flag was evaluated for the caller.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeatureExplanation, examples(json!({
    "key": "new-checkout", "value": true, "variant": "on", "reason": "SPLIT", "level": "global",
    "salt": "new-checkout", "enabled": true, "prerequisites": [{"flag": "payments-v2", "holds": true}],
    "levels": [
        {"level": "default", "variant": "off", "chosen": false, "rules": []},
        {"level": "global", "variant": "on", "chosen": false, "rules": [{"result": "matched", "bucket": 1353}]},
        {"level": "plan", "variant": null, "chosen": false, "rules": []},
        {"level": "tenant", "variant": null, "chosen": false, "rules": []},
        {"level": "user", "variant": null, "chosen": false, "rules": [{"result": "conditions_fail", "bucket": null}]},
    ],
})))]
pub(crate) struct ExplanationView {
    key: String,
    #[schema(value_type = Value)]
    value: Value,
    variant: String,
    #[schema(value_type = schema::FlagReason)]
    reason: &'static str,
    /// The level that won.
    #[schema(value_type = schema::Level)]
    level: &'static str,
    /// The salt of the rollout's hash: `bucket = murmur3(salt + ":" + stickiness) * 10000 / 2^32`.
    salt: String,
    /// Whether the flag is active and enabled.
    enabled: bool,
    prerequisites: Vec<PrerequisiteView>,
    /// The result of each level, the least specific first.
    levels: Vec<LevelView>,
}

/// A prerequisite of a flag.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeaturePrerequisite)]
pub(crate) struct PrerequisiteView {
    /// The key of the other flag; null for one that tenants cannot see.
    #[schema(required = true)]
    flag: Option<String>,
    holds: bool,
}

/// The result of a level of a flag.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeatureLevel)]
pub(crate) struct LevelView {
    #[schema(value_type = schema::Level)]
    level: &'static str,
    /// Null when no rule of the level matched.
    #[schema(required = true)]
    variant: Option<String>,
    /// Whether the variant is the tenant's override.
    chosen: bool,
    /// The rules that can match this tenant, in order, up to the one that matched.
    rules: Vec<RuleView>,
}

/// The result of a rule.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeatureRule)]
pub(crate) struct RuleView {
    #[schema(value_type = schema::RuleOutcome)]
    result: &'static str,
    /// The bucket of the subject, of 10,000; null when no rollout was evaluated.
    #[schema(required = true)]
    bucket: Option<u16>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/features").get(list))
        .service(
            Endpoint::at("/features/{key}/override")
                .put(choose)
                .delete(unchoose),
        )
        .service(Endpoint::at("/features/{key}/explain").get(explain));
}

/// List feature flags of the tenant
///
/// Returns each flag as evaluated for the caller. Admins also see flags that they may override and that others do
/// not see. Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/features", operation_id = "list_features", tag = "Features",
    responses((status = 200, description = "The flags by key, always on one page.", body = PageView<FeatureView>)),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn list(cx: Ctx<ReadFeatures>) -> Answer {
    let features = flag::list(&cx).await?;
    Ok(HttpResponse::Ok().json(PageView {
        data: features.into_iter().map(FeatureView::from).collect::<Vec<_>>(),
        next_cursor: None,
    }))
}

/// Override a feature flag
///
/// Sets the variant for the tenant. Only flags that are `overridable` can be overridden. `If-Match` is compared
/// with the `version` of the current override. Minimum role: admin.
#[utoipa::path(
    put, path = "/api/v1/features/{key}/override", operation_id = "override_feature", tag = "Features",
    params(("key" = String, Path), IfMatch), request_body = ChooseVariant,
    responses((status = 200, description = "The updated flag.", body = FeatureView, headers(("ETag")))),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["not_found", "tenant_suspended"]))),
)]
pub(crate) async fn choose(
    cx: Ctx<ManageFeatures>,
    key: Id<FlagKey>,
    when: IfMatch,
    body: Body<ChooseVariant>,
) -> Answer {
    let feature = flag::choose(&cx, &key.0.0, &when.0, &body.variant).await?;
    let version = feature.chosen.as_ref().map_or(0, |chosen| chosen.version);
    Ok(entity(version, &FeatureView::from(feature)))
}

/// Delete an override of a feature flag
///
/// The flag is evaluated by its rules again. Minimum role: admin.
#[utoipa::path(
    delete, path = "/api/v1/features/{key}/override", operation_id = "delete_feature_override", tag = "Features",
    params(("key" = String, Path), IfMatch),
    responses((status = 204, description = "The override is deleted.")),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["not_found", "tenant_suspended"]))),
)]
pub(crate) async fn unchoose(cx: Ctx<ManageFeatures>, key: Id<FlagKey>, when: IfMatch) -> Answer {
    flag::unchoose(&cx, &key.0.0, &when.0).await?;
    Ok(no_content())
}

/// Explain the value of a feature flag
///
/// Returns the result of each level and rule for the caller. Conditions and descriptions of rules are not included,
/// nor are rules that cannot match this tenant. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/features/{key}/explain", operation_id = "explain_feature", tag = "Features",
    params(("key" = String, Path)),
    responses((status = 200, description = "The result of each level.", body = ExplanationView)),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["not_found"]))),
)]
pub(crate) async fn explain(cx: Ctx<ExplainFeatures>, key: Id<FlagKey>) -> Answer {
    let explanation = flag::explain(&cx, &key.0.0).await?;
    Ok(HttpResponse::Ok().json(ExplanationView::of(key.0.0, explanation)))
}

impl From<Feature> for FeatureView {
    fn from(feature: Feature) -> Self {
        let definition = feature.definition;
        let value = definition.variants.get(&feature.variant).cloned();
        Self {
            key: definition.key,
            description: definition.description,
            kind: definition.kind,
            value: value.unwrap_or_default(),
            variants: definition.variants.into_iter().collect(),
            variant: feature.variant,
            reason: feature.reason.as_str(),
            level: feature.level.as_str(),
            lifecycle: definition.lifecycle,
            overridable: definition.tenant_overridable,
            chosen: feature.chosen.map(|chosen| OverrideView {
                variant: chosen.variant,
                updated_at: chosen.updated_at,
                version: chosen.version,
            }),
        }
    }
}

impl ExplanationView {
    fn of(key: String, explanation: Explanation) -> Self {
        let prerequisites = explanation
            .prerequisites
            .into_iter()
            .map(|other| PrerequisiteView {
                flag: other.flag,
                holds: other.holds,
            });
        let levels = explanation.levels.into_iter().map(|level| LevelView {
            level: level.level.as_str(),
            variant: level.variant,
            chosen: level.chosen,
            rules: level
                .rules
                .into_iter()
                .map(|rule| RuleView {
                    result: rule.result.as_str(),
                    bucket: rule.bucket.map(tenantry_domain::flags::Bucket::number),
                })
                .collect(),
        });
        Self {
            key,
            value: explanation.value,
            variant: explanation.variant,
            reason: explanation.reason.as_str(),
            level: explanation.level.as_str(),
            salt: explanation.salt,
            enabled: explanation.enabled,
            prerequisites: prerequisites.collect(),
            levels: levels.collect(),
        }
    }
}
