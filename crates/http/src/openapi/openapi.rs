use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use tenantry_domain::events::{EventType, EventTypes};
use tenantry_domain::kernel::ErrorCode;
use utoipa::{
    OpenApi,
    openapi::{self, Object, ObjectBuilder, Type},
};

use crate::app::system;
use crate::openapi::docs::{self, Texts};
use crate::openapi::{operation, webhooks::webhooks};
use crate::{Problem, v1};

/// Returns the OpenAPI 3.1 document of all routes.
pub fn openapi() -> openapi::OpenApi {
    openapi_with([], &EventTypes::default())
}

/// How many sets of types of events have a cached document. A server has one.
const MOST_CACHED: usize = 8;

/// The texts of [`openapi()`] with webhooks of these types of events. Applications of a process with the same types share them: they have
/// the same routes.
pub(crate) fn shared(types: &EventTypes) -> Arc<Texts> {
    static DOCUMENT: LazyLock<openapi::OpenApi> = LazyLock::new(openapi);
    static CACHED: Mutex<Vec<(Vec<EventType>, Arc<Texts>)>> = Mutex::new(Vec::new());
    let mut cached = CACHED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, texts)) = cached.iter().find(|(all, _)| all == types.all()) {
        return Arc::clone(texts);
    }
    let mut document = DOCUMENT.clone();
    document.webhooks = webhooks(types);
    let texts = Arc::new(Texts::of(document));
    if cached.len() >= MOST_CACHED {
        cached.remove(0);
    }
    cached.push((types.all().to_vec(), Arc::clone(&texts)));
    texts
}

/// [`openapi()`], with what the services that embed the backend say of theirs, and with webhooks of these types of events.
pub fn openapi_with(
    documents: impl IntoIterator<Item = openapi::OpenApi>,
    types: &EventTypes,
) -> openapi::OpenApi {
    let mut all = Document::openapi();
    operation::complete(&mut all);
    all.webhooks = webhooks(types);
    documents.into_iter().fold(all, |all, mut document| {
        operation::complete(&mut document);
        all.merge_from(document)
    })
}

/// The code of a problem.
pub(crate) fn error_code() -> Object {
    let codes = ErrorCode::ALL.iter().map(|code| code.as_str());
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(codes))
        .build()
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tenantry",
        contact(name = "Tenantry"),
        description = "A multi-tenant backend. A credential belongs to one tenant and cannot see another tenant. \
            Operators of the platform have their own credentials, for the operations below `/api/v1/admin`.\n\n\
            **To try the API on this page:** run *Log in* (`POST /api/v1/auth/login`) with the e-mail address, password \
            and `tenant_slug` of a user, copy `access_token` from the response, press **Authorize**, and paste the token \
            into *bearer*. Operators use *Log in as an operator* and *operator*. A token expires after some minutes; \
            *Refresh the tokens* returns a new one.\n\n\
            Errors are problem documents (RFC 9457) with a stable `code`. Lists are paginated with opaque cursors. \
            Each mutable resource has a `version`, and an `ETag` for `If-Match` and `If-None-Match`. PATCH is a JSON \
            merge patch (RFC 7396). A POST that creates something accepts an `Idempotency-Key`.",
    ),
    tags(
        (name = "Sign-up", description = "Create a tenant"),
        (name = "Authentication", description = "Sessions and tokens"),
        (name = "Tenant", description = "The tenant of the credential"),
        (name = "Quotas", description = "Entitlements, quotas and reservations"),
        (name = "Settings", description = "Settings of the tenant and their versions"),
        (name = "Branding", description = "Colors, logos and style sheet of the tenant"),
        (name = "Billing", description = "Subscription, invoices and payment pages"),
        (name = "Users", description = "Users of the tenant"),
        (name = "API keys", description = "Keys for programs"),
        (name = "Projects", description = "Projects and their members"),
        (name = "Tasks", description = "Tasks of projects"),
        (name = "Resources", description = "Documents and links, with their versions"),
        (name = "Security alerts", description = "Suspicious activity, and the rules that find it"),
        (name = "Audit log", description = "Who did what, and when"),
        (name = "Events", description = "The catalogue of events, and the feed of the tenant"),
        (name = "Notifications", description = "Notifications of the caller, and what the caller chooses"),
        (name = "Webhooks", description = "The endpoints to which events are sent"),
        (name = "Operators", description = "Operating the platform, with operator tokens"),
        (name = "Features", description = "Feature flags and their overrides"),
        (name = "Usage", description = "Usage events and totals, by meter"),
        (name = "System", description = "Health, metrics and documents; without a tenant"),
    ),
    paths(
        v1::tenant::signup::sign_up,
        v1::identity::auth::login, v1::identity::auth::register, v1::identity::auth::refresh, v1::identity::auth::logout, v1::identity::auth::me,
        v1::identity::challenge::get,
        v1::identity::account::change_password, v1::identity::account::forgot_password, v1::identity::account::reset_password, v1::identity::account::verify_email,
        v1::identity::account::resend_verification, v1::identity::account::change_email, v1::identity::account::confirm_email, v1::identity::account::revert_email,
        v1::identity::account::send_reset,
        v1::identity::workspace::discover, v1::identity::workspace::switch_tenant,
        v1::identity::session::list, v1::identity::session::end, v1::identity::session::logout_all, v1::identity::session::end_of_user,
        v1::identity::mfa::enroll, v1::identity::mfa::confirm, v1::identity::mfa::disable, v1::identity::mfa::renew_recovery_codes, v1::identity::mfa::step_up, v1::identity::mfa::verify,
        v1::identity::mfa::enroll_at_login, v1::identity::mfa::confirm_at_login, v1::identity::mfa::list_devices, v1::identity::mfa::revoke_devices, v1::identity::mfa::reset,
        v1::identity::passkey::begin_registration, v1::identity::passkey::finish_registration, v1::identity::passkey::begin_login, v1::identity::passkey::finish_login,
        v1::identity::passkey::list, v1::identity::passkey::rename, v1::identity::passkey::remove,
        v1::tenant::tenant::read, v1::tenant::tenant::update, v1::tenant::tenant::delete, v1::plans::capability::read,
        v1::tenant::custom_domain::list, v1::tenant::custom_domain::claim, v1::tenant::custom_domain::read, v1::tenant::custom_domain::verify,
        v1::tenant::custom_domain::delete,
        v1::plans::entitlement::list, v1::plans::entitlement::read,
        v1::usage::quota::list, v1::usage::quota::alerts, v1::usage::quota::reservations, v1::usage::quota::reserve, v1::usage::quota::read_reservation, v1::usage::quota::commit,
        v1::usage::quota::release,
        v1::customization::security_policy::read, v1::customization::security_policy::update,
        v1::customization::setting::list, v1::customization::setting::update, v1::customization::setting::schema, v1::customization::setting::roll_back,
        v1::customization::setting::list_versions, v1::customization::setting::read_version, v1::customization::setting::diff,
        v1::customization::branding::read, v1::customization::branding::replace, v1::customization::branding::update, v1::customization::branding::theme,
        v1::customization::branding::preview, v1::customization::branding::preview_page,
        v1::billing::billing::read, v1::billing::billing::list_invoices, v1::billing::billing::preview, v1::billing::billing::checkout, v1::billing::billing::portal,
        v1::billing::billing::change, v1::billing::billing::cancel, v1::billing::billing::resume,
        v1::identity::user::list, v1::identity::user::create, v1::identity::user::read, v1::identity::user::update, v1::identity::user::delete,
        v1::identity::invitation::list, v1::identity::invitation::create, v1::identity::invitation::read, v1::identity::invitation::resend, v1::identity::invitation::revoke,
        v1::identity::invitation::accept,
        v1::identity::permission::list,
        v1::identity::api_key::list, v1::identity::api_key::create, v1::identity::api_key::read, v1::identity::api_key::update, v1::identity::api_key::revoke,
        v1::identity::api_key::rotate,
        v1::identity::custom_role::list, v1::identity::custom_role::create, v1::identity::custom_role::read, v1::identity::custom_role::update,
        v1::identity::custom_role::delete,
        v1::work::project::list, v1::work::project::create, v1::work::project::read, v1::work::project::update, v1::work::project::delete,
        v1::work::project::restore, v1::work::project::list_members, v1::work::project::add_member, v1::work::project::remove_member,
        v1::work::task::list, v1::work::task::list_of_project, v1::work::task::create, v1::work::task::read, v1::work::task::update,
        v1::work::task::delete,
        v1::work::resource::list, v1::work::resource::create, v1::work::resource::read, v1::work::resource::update,
        v1::work::resource::delete, v1::work::resource::list_versions, v1::work::resource::read_version,
        v1::admin::operator::login, v1::admin::operator::list, v1::admin::operator::create, v1::admin::operator::read,
        v1::admin::operator::change, v1::admin::operator::remove, v1::admin::operator::end_sessions,
        v1::admin::operator::reset_password, v1::admin::operator::reset_mfa,
        v1::admin::password::change,
        v1::admin::mfa::enroll,
        v1::admin::mfa::confirm,
        v1::admin::mfa::disable,
        v1::admin::mfa::step_up,
        v1::admin::mfa::renew_recovery_codes,
        v1::admin::mfa::verify,
        v1::admin::mfa::enroll_at_login,
        v1::admin::mfa::confirm_at_login,
        v1::admin::billing::accounts, v1::admin::billing::dead_letters, v1::admin::billing::drift,
        v1::admin::billing::events, v1::admin::billing::simulate,
        v1::admin::tenant::list, v1::admin::tenant::create, v1::admin::tenant::agree, v1::admin::tenant::change_plan,
        v1::admin::job::list, v1::admin::job::replay, v1::admin::job::cancel,
        v1::admin::rows::users, v1::admin::rows::projects, v1::admin::rows::tasks, v1::admin::rows::usage, v1::admin::tenant_audit::list,
        v1::admin::tenant::read, v1::admin::tenant::suspend, v1::admin::tenant::resume,
        v1::admin::tenant::delete, v1::admin::tenant::restore, v1::admin::tenant::purge,
        v1::tenant::support_access::list, v1::tenant::support_access::read, v1::tenant::support_access::uses,
        v1::tenant::support_access::approve, v1::tenant::support_access::deny, v1::tenant::support_access::end,
        v1::admin::support_access::list, v1::admin::support_access::request, v1::admin::support_access::read,
        v1::admin::support_access::withdraw, v1::admin::support_access::token,
        v1::flags::feature::list, v1::flags::feature::choose, v1::flags::feature::unchoose, v1::flags::feature::explain,
        v1::admin::flag::list, v1::admin::flag::create, v1::admin::flag::read, v1::admin::flag::replace,
        v1::admin::flag::archive, v1::admin::flag::roll_back, v1::admin::flag::list_versions,
        v1::admin::flag::read_version,
        v1::admin::segment::list, v1::admin::segment::create, v1::admin::segment::read,
        v1::admin::segment::replace, v1::admin::segment::delete, v1::admin::segment::roll_back,
        v1::admin::segment::list_versions, v1::admin::segment::read_version,
        v1::archive::export::create, v1::archive::export::list, v1::archive::export::read, v1::archive::export::download, v1::archive::export::follow,
        v1::security::alert::list, v1::security::alert::read, v1::security::alert::acknowledge, v1::security::rule::list,
        v1::security::rule::update,
        v1::archive::person::create, v1::archive::person::read, v1::identity::erasure::erase,
        v1::audit::event::list, v1::audit::event::verification, v1::audit::export::export, v1::admin::audit::list,
        v1::events::event_type::list, v1::events::event::list, v1::events::consumer::list, v1::events::consumer::read,
        v1::events::consumer::store, v1::events::consumer::delete, v1::admin::event::list,
        v1::notifications::notification::list, v1::notifications::notification::count, v1::notifications::notification::mark,
        v1::notifications::notification::read_all, v1::notifications::preferences::read, v1::notifications::preferences::update,
        v1::notifications::unsubscribe::show, v1::notifications::unsubscribe::end,
        v1::webhooks::endpoint::list, v1::webhooks::endpoint::create, v1::webhooks::endpoint::read, v1::webhooks::endpoint::update,
        v1::webhooks::endpoint::delete, v1::webhooks::endpoint::rotate, v1::webhooks::portal::open,
        v1::webhooks::delivery::test, v1::webhooks::delivery::recover, v1::webhooks::delivery::attempts, v1::webhooks::delivery::stats,
        v1::webhooks::message::list, v1::webhooks::message::read, v1::webhooks::message::resend,
        v1::usage::usage::series, v1::usage::usage::summary, v1::usage::usage::record, v1::usage::usage::invalidate,
        crate::webhook::stripe, crate::ofrep::ofrep::evaluate, crate::ofrep::ofrep::evaluate_all, crate::ofrep::event_stream::events,
        system::health, system::liveness, system::readiness, system::detailed, system::jwks, system::problems, system::problem,
        crate::metrics::metrics,
        docs::document, docs::document_as_yaml,
    ),
    components(schemas(Problem)),
)]
struct Document;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use actix_web::http::Method;
    use serde_json::Value;
    use tenantry_domain::events::Field;

    use super::*;
    use crate::{
        HttpConfig,
        testing::{Call, SOME_ID, SomeKey, api},
    };

    /// Every path with its methods and the description of each.
    fn documented() -> Vec<(String, Vec<(Method, Value)>)> {
        let document = serde_json::to_value(openapi()).unwrap();
        let paths = document["paths"].as_object().unwrap().iter();
        let methods = |item: &Value| {
            let methods = item.as_object().unwrap().iter();
            methods
                .map(|(name, operation)| (name.to_uppercase().parse().unwrap(), operation.clone()))
                .collect()
        };
        paths.map(|(path, item)| (path.clone(), methods(item))).collect()
    }

    fn is_guarded(operation: &Value) -> bool {
        !operation["security"].as_array().unwrap().is_empty()
    }

    fn concrete(path: &str) -> String {
        path.replace("{id}", SOME_ID)
            .replace("{user_id}", SOME_ID)
            .replace("{export_id}", SOME_ID)
            .replace("{n}", "1")
            .replace("{a}", "1")
            .replace("{b}", "1")
            .replace("{key}", "new-checkout")
            .replace("{code}", "internal")
            .replace("{meter}", "api_calls")
            .replace("{feature}", "api_calls")
            .replace("{name}", "support")
            .replace("{endpoint_id}", SOME_ID)
    }

    #[actix_web::test]
    async fn each_path_has_exactly_the_methods_that_are_documented() {
        let api = api(HttpConfig::default());
        for (path, methods) in documented() {
            let reply = Call::new(Method::TRACE, &concrete(&path)).send(&api).await;
            assert_eq!(reply.code(), "method_not_allowed", "{path}");
            let allowed: BTreeSet<_> = reply
                .header("Allow")
                .unwrap()
                .split(", ")
                .map(str::to_owned)
                .collect();
            let mut expected: BTreeSet<_> = methods.iter().map(|(method, _)| method.to_string()).collect();
            if expected.contains("GET") {
                expected.insert("HEAD".into());
            }
            assert_eq!(allowed, expected, "{path}");
        }
    }

    #[actix_web::test]
    async fn each_operation_is_reached_and_asks_for_a_credential_when_it_says_so() {
        let api = api(HttpConfig::default());
        for (path, methods) in documented() {
            for (method, operation) in methods {
                let uri = concrete(&path);
                let anonymous = Call::new(method.clone(), &uri).send(&api).await.status.as_u16();
                let guarded = is_guarded(&operation);
                assert_eq!(anonymous == 401, guarded, "{method} {path}: {anonymous}");
                let admin = Call::new(method.clone(), &uri)
                    .bearer(
                        if operation["security"][0]["operator"].is_array() || path == "/metrics" {
                            "operator"
                        } else {
                            "admin"
                        },
                    )
                    .send(&api)
                    .await
                    .status
                    .as_u16();
                assert!(
                    ![401, 403, 404, 405, 500].contains(&admin),
                    "{method} {path}: {admin}"
                );
            }
        }
    }

    /// A key with every scope gets through wherever the document says that keys are accepted, and nowhere else.
    #[actix_web::test]
    async fn keys_are_accepted_where_the_document_says_so() {
        let api = api(HttpConfig::default());
        for (path, methods) in documented() {
            for (method, operation) in methods {
                let security = operation["security"].as_array().unwrap();
                if !is_guarded(&operation) || security[0].get("operator").is_some() || path == "/metrics" {
                    continue;
                }
                let call = Call::new(method.clone(), &concrete(&path));
                let status = call.header("X-API-Key", &SomeKey::All.text()).send(&api).await;
                let status = status.status.as_u16();
                let says = security.iter().any(|way| way.get("api_key").is_some());
                let rotates = operation["operationId"] == "rotate_api_key";
                assert_eq!(status != 403, says && !rotates, "{method} {path}: {status}");
                assert!(![401, 500].contains(&status), "{method} {path}: {status}");
            }
        }
    }

    #[test]
    fn nothing_is_missing() {
        // Kept by hand, so that a route that loses its description is noticed.
        let operations: usize = documented().iter().map(|(_, methods)| methods.len()).sum();
        assert_eq!((documented().len(), operations), (206, 262));
    }

    #[test]
    fn only_reads_are_answered_not_modified() {
        for (path, methods) in documented() {
            for (method, operation) in methods {
                let conditional = operation["parameters"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|one| one["name"] == "If-None-Match"));
                let reads = method == "GET" || path.starts_with("/ofrep/");
                assert_eq!(
                    operation["responses"]["304"].is_object(),
                    conditional && reads,
                    "{method} {path}"
                );
            }
        }
    }

    /// "Create a tenant", not "Creates a tenant", "The tenant" or "Who is in the tenant".
    #[test]
    fn summaries_begin_with_a_verb_in_the_imperative() {
        let no_verbs = [
            "A", "An", "The", "All", "Who", "What", "How", "Where", "When", "Whether",
        ];
        for (path, methods) in documented() {
            for (method, operation) in methods {
                let summary = operation["summary"].as_str().unwrap_or_default();
                let first = summary.split(' ').next().unwrap_or_default();
                let is_third_person = first.ends_with('s') && !first.ends_with("ss");
                assert!(
                    first.starts_with(|c: char| c.is_ascii_uppercase())
                        && !no_verbs.contains(&first)
                        && !is_third_person
                        && !summary.ends_with('.')
                        && summary.len() <= 60,
                    "{method} {path}: {summary}"
                );
            }
        }
    }

    #[test]
    fn every_operation_is_described() {
        let mut ids = BTreeSet::new();
        for (path, methods) in documented() {
            for (method, operation) in methods {
                let id = operation["operationId"].as_str().unwrap().to_owned();
                assert!(ids.insert(id), "{method} {path}");
                assert!(
                    operation["summary"].is_string()
                        && operation["description"].is_string()
                        && operation["tags"][0].is_string(),
                    "{method} {path}"
                );
                assert!(operation.get("x-errors").is_none());
                for (status, response) in operation["responses"].as_object().unwrap() {
                    assert!(response["description"].is_string(), "{method} {path} {status}");
                    assert!(
                        response["headers"]["X-Request-ID"].is_object(),
                        "{method} {path} {status}"
                    );
                }
                let refused = &operation["responses"]["429"];
                let operator = operation["security"][0].get("operator").is_some();
                let probe = path.starts_with("/health");
                let limited = (is_guarded(&operation) && !probe)
                    || operation.get("requestBody").is_some()
                    || operation["tags"][0] == "Branding"
                    || (operation["tags"][0] == "System" && !probe);
                for header in ["RateLimit", "RateLimit-Policy"] {
                    assert_eq!(refused["headers"][header].is_object(), limited, "{method} {path}");
                }
                // Operators who prove who they are may be refused, too.
                let waits = refused["headers"]["Retry-After"].is_object();
                assert_eq!(waits, refused.is_object(), "{method} {path}");
                if operator && operation["tags"][0] == "Operators" {
                    assert!(operation["responses"]["403"].is_object(), "{method} {path}");
                }
                if is_guarded(&operation) && !operator {
                    for status in ["401", "403", "410", "429", "500", "503"] {
                        assert!(
                            operation["responses"][status].is_object(),
                            "{method} {path} {status}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_document_is_openapi_3_1_and_refers_to_nothing_that_is_not_there() {
        let document = serde_json::to_value(openapi()).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
        let text = document.to_string();
        for reference in text
            .split("\"$ref\":\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
        {
            assert!(document.pointer(&reference[1..]).is_some(), "{reference}");
        }
    }

    fn schema(name: &str) -> Value {
        let document = serde_json::to_value(openapi()).unwrap();
        document["components"]["schemas"][name].clone()
    }

    #[test]
    fn members_of_a_problem_are_optional_properties() {
        let problem = schema("Problem");
        assert!(problem.get("allOf").is_none());
        for member in [
            "errors",
            "violated-policies",
            "feature",
            "current_plan",
            "meter",
            "resets_at",
            "mfa_token",
            "methods",
            "expires_in",
            "max_age",
        ] {
            assert!(problem["properties"][member].is_object(), "{member}");
            let required = problem["required"].as_array().unwrap();
            assert!(!required.contains(&member.into()), "{member}");
        }
        let limit = problem["properties"]["limit"]["anyOf"].as_array().unwrap();
        let types: Vec<_> = limit.iter().map(|kind| kind["type"].as_str().unwrap()).collect();
        assert_eq!(types, ["string", "integer"]);
    }

    #[test]
    fn a_code_may_have_another_status_at_an_operation() {
        let document = serde_json::to_value(openapi()).unwrap();
        let example = |path: &str, method: &str, status: &str| {
            let response = &document["paths"][path][method]["responses"][status];
            let examples = &response["content"]["application/problem+json"]["examples"];
            let reference = examples["mfa_required"]["$ref"].as_str().unwrap();
            document.pointer(&reference[1..]).unwrap()["value"]["status"].clone()
        };
        assert_eq!(example("/api/v1/auth/login", "post", "401"), 401);
        assert_eq!(example("/api/v1/tenant/settings", "patch", "403"), 403);
    }

    #[test]
    fn objects_say_whether_they_accept_other_properties() {
        assert_eq!(schema("FlagDefinition")["additionalProperties"], false);
        assert_eq!(schema("Segment")["additionalProperties"], false);
        assert_eq!(
            schema("FlagDefinition")["properties"]["variants"]["additionalProperties"],
            true
        );
        assert_eq!(schema("CloudEvent")["additionalProperties"], true);
    }

    /// A list of states is useless to a generator when it is in prose.
    #[test]
    fn names_of_states_and_levels_are_listed() {
        let document = serde_json::to_value(openapi()).unwrap();
        let schemas = &document["components"]["schemas"];
        let lists = |schema: &Value| {
            let listed = schema.get("enum").or_else(|| schema.get("const"));
            listed.is_some() || schema["pattern"].as_str().is_some_and(|text| text.contains('|'))
        };
        let mut found = 0;
        for (name, schema) in schemas.as_object().unwrap() {
            for member in ["level", "operator", "lifecycle", "interval", "state", "severity"] {
                let property = &schema["properties"][member];
                let parts = property["oneOf"].as_array().into_iter().flatten();
                for part in parts.chain([property]).filter(|part| part.is_object()) {
                    let part = match part["$ref"].as_str() {
                        Some(reference) => document.pointer(&reference[1..]).unwrap(),
                        None => part,
                    };
                    if part["type"] == "string" {
                        found += 1;
                        assert!(lists(part), "{name}.{member}: {part}");
                    }
                }
            }
        }
        assert!(found > 15, "{found}");
    }

    #[test]
    fn every_schema_is_used() {
        let document = serde_json::to_value(openapi()).unwrap();
        let text = |value: &Value| value.to_string();
        let mut used = text(&document["paths"]) + &text(&document["webhooks"]);
        let components = document["components"].as_object().unwrap();
        let mut waiting: Vec<(String, String)> = Vec::new();
        for (kind, all) in components.iter().filter(|(kind, _)| *kind != "securitySchemes") {
            for (name, component) in all.as_object().unwrap() {
                waiting.push((format!("\"#/components/{kind}/{name}\""), text(component)));
            }
        }
        loop {
            let (now, rest): (Vec<_>, Vec<_>) = waiting
                .into_iter()
                .partition(|(reference, _)| used.contains(reference));
            waiting = rest;
            if now.is_empty() {
                break;
            }
            used = now.into_iter().map(|(_, component)| component).collect();
        }
        let unused: Vec<_> = waiting.iter().map(|(reference, _)| reference).collect();
        assert!(unused.is_empty(), "{unused:?}");
    }

    #[test]
    fn items_of_lists_refer_to_their_schema() {
        let document = serde_json::to_value(openapi()).unwrap();
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            if let Some((_, item)) = name.split_once('_') {
                let reference = format!("#/components/schemas/{item}");
                assert_eq!(schema["properties"]["data"]["items"]["$ref"], reference, "{name}");
            }
        }
    }

    #[test]
    fn creating_operations_link_to_reading_ones() {
        let document = serde_json::to_value(openapi()).unwrap();
        let links = |path: &str| document["paths"][path]["post"]["responses"]["201"]["links"].clone();
        let read = &links("/api/v1/projects")["get_project"];
        assert_eq!(read["parameters"]["id"], "$response.body#/id");
        let read = &links("/api/v1/projects/{id}/tasks")["get_task"];
        assert_eq!(read["parameters"]["id"], "$response.body#/id");
        let read = &links("/api/v1/quotas/{meter}/reservations")["get_quota_reservation"];
        assert_eq!(read["parameters"]["meter"], "$request.path.meter");
        assert_eq!(
            links("/api/v1/admin/flags")["get_flag"]["parameters"]["key"],
            "$response.body#/key"
        );
    }

    #[test]
    fn applications_with_the_same_event_types_share_their_document() {
        const FIELDS: &[Field] = &[Field::id("id")];
        let own =
            || EventTypes::new([EventType::new("note.created", "A note was created.", FIELDS)]).unwrap();
        let (product, with_own) = (shared(&EventTypes::default()), shared(&own()));
        assert!(Arc::ptr_eq(&product, &shared(&EventTypes::default())));
        assert!(Arc::ptr_eq(&with_own, &shared(&own())));
        let has_note = |texts: &Texts| {
            let webhooks = texts.document().webhooks.as_ref().unwrap();
            webhooks.paths.contains_key("note.created")
        };
        assert_eq!((has_note(&product), has_note(&with_own)), (false, true));
    }

    #[test]
    fn every_code_named_by_an_operation_exists() {
        let document: Value = serde_json::to_value(Document::openapi()).unwrap();
        let named = document["paths"]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|item| item.as_object().unwrap().values());
        for code in named
            .filter_map(|operation| operation["x-errors"].as_array())
            .flatten()
        {
            // A code may have its status before it.
            let name = code.as_str().unwrap().rsplit(' ').next().unwrap();
            assert!(ErrorCode::parse(name).is_some(), "{code}");
        }
    }
}
