use std::str::FromStr;

use actix_web::{HttpResponse, web::ServiceConfig};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tenantry_domain::{Explanation, FlagType, Lifecycle, ParseIdError};
use tenantry_tenancy::flag::{self, Feature};
use utoipa::ToSchema;

use crate::{
    Answer, Body, Ctx, Endpoint, Id, IfMatch, PageView, entity, no_content,
    permission::{ExplainFeatures, ManageFeatures, ReadFeatures},
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

/// A feature flag as it is for whoever asks.
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
    #[schema(value_type = FlagTypeName)]
    kind: FlagType,
    /// What it can be: names, and the value of each.
    #[schema(value_type = Object)]
    variants: Value,
    /// What it is.
    #[schema(value_type = Value)]
    value: Value,
    /// The name of that.
    variant: String,
    /// Why: `STATIC`, `DEFAULT`, `TARGETING_MATCH`, `SPLIT` or `DISABLED`, as in OpenFeature.
    reason: &'static str,
    /// The level that said so: `default`, `global`, `plan`, `tenant` or `user`.
    level: &'static str,
    /// `active` or `deprecated`.
    #[schema(value_type = String)]
    lifecycle: Lifecycle,
    /// Whether an admin may choose the variant for the tenant.
    overridable: bool,
    /// What the tenant has chosen.
    #[serde(rename = "override")]
    #[schema(required = true)]
    chosen: Option<OverrideView>,
}

/// What a tenant has chosen of a flag.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeatureOverride)]
pub(crate) struct OverrideView {
    variant: String,
    updated_at: chrono::DateTime<chrono::Utc>,
    /// Counts its changes; the `ETag`.
    version: i64,
}

/// The types of flags.
#[derive(ToSchema)]
#[schema(as = FlagType, rename_all = "lowercase")]
#[expect(dead_code, reason = "it only describes `FlagType`")]
pub(crate) enum FlagTypeName {
    Boolean,
    String,
    Integer,
    Number,
    Object,
}

/// The variant that the tenant is to get.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChooseVariant, examples(json!({"variant": "on"})))]
pub(crate) struct ChooseVariant {
    /// One of the flag's variants.
    variant: String,
}

/// How a flag came to what it is for whoever asks.
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
    reason: &'static str,
    /// The level that won.
    level: &'static str,
    /// What buckets are salted with: `bucket = murmur3(salt + ":" + stickiness) * 10000 / 2^32`.
    salt: String,
    /// Whether it is in use and not switched off.
    enabled: bool,
    prerequisites: Vec<PrerequisiteView>,
    /// What each level says, the least specific first.
    levels: Vec<LevelView>,
}

/// Another flag that has to be something first.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeaturePrerequisite)]
pub(crate) struct PrerequisiteView {
    /// Null for one that is not shown to tenants.
    #[schema(required = true)]
    flag: Option<String>,
    holds: bool,
}

/// What a level says of a flag.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeatureLevel)]
pub(crate) struct LevelView {
    level: &'static str,
    /// Null where it says nothing.
    #[schema(required = true)]
    variant: Option<String>,
    /// Whether that is what the tenant has chosen.
    chosen: bool,
    /// Its rules that can be about this tenant, in their order, up to the one that matched.
    rules: Vec<RuleView>,
}

/// What came of a rule.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FeatureRule)]
pub(crate) struct RuleView {
    /// `matched`, `outside_schedule`, `conditions_fail`, `nothing_to_divide_by` or `outside_share`.
    result: &'static str,
    /// Of ten thousand, where that was asked.
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

/// The feature flags of the tenant, as they are for whoever asks
///
/// Least role: viewer. Admins also see flags that are theirs to choose and not shown to others.
#[utoipa::path(
    get, path = "/api/v1/features", operation_id = "list_features", tag = "Features",
    responses((status = 200, description = "By key, always on one page.", body = PageView<FeatureView>)),
    security(("bearer" = [])),
)]
pub(crate) async fn list(cx: Ctx<ReadFeatures>) -> Answer {
    let features = flag::list(&cx).await?;
    Ok(HttpResponse::Ok().json(PageView {
        data: features.into_iter().map(FeatureView::from).collect::<Vec<_>>(),
        next_cursor: None,
    }))
}

/// Chooses the variant that the tenant gets
///
/// Least role: admin. Only of flags that are `overridable`. `If-Match` compares with the `version` of the present
/// override.
#[utoipa::path(
    put, path = "/api/v1/features/{key}/override", operation_id = "override_feature", tag = "Features",
    params(("key" = String, Path), IfMatch), request_body = ChooseVariant,
    responses((status = 200, description = "The flag as it is now.", body = FeatureView, headers(("ETag")))),
    security(("bearer" = [])),
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

/// Takes the tenant's choice back
///
/// Least role: admin.
#[utoipa::path(
    delete, path = "/api/v1/features/{key}/override", operation_id = "delete_feature_override", tag = "Features",
    params(("key" = String, Path), IfMatch),
    responses((status = 204, description = "What operators say holds again.")),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["not_found", "tenant_suspended"]))),
)]
pub(crate) async fn unchoose(cx: Ctx<ManageFeatures>, key: Id<FlagKey>, when: IfMatch) -> Answer {
    flag::unchoose(&cx, &key.0.0, &when.0).await?;
    Ok(no_content())
}

/// How a flag came to what it is for whoever asks
///
/// Least role: admin. Of rules neither conditions nor descriptions are told, and rules that cannot be about this
/// tenant are left out.
#[utoipa::path(
    get, path = "/api/v1/features/{key}/explain", operation_id = "explain_feature", tag = "Features",
    params(("key" = String, Path)),
    responses((status = 200, description = "What each level says.", body = ExplanationView)),
    security(("bearer" = [])),
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
                    bucket: rule.bucket.map(tenantry_domain::Bucket::number),
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
