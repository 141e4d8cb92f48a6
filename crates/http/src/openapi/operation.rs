//! What the operations of the OpenAPI document have in common: errors, headers, links and the security schemes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tenantry_domain::kernel::ErrorCode;
use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, ObjectBuilder, OpenApi, Ref, RefOr, Response, ResponseBuilder, Server,
    Type,
    example::ExampleBuilder,
    header::Header,
    path::{Operation, ParameterIn},
    security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use crate::extract::api_key;
use crate::openapi::{
    links,
    schemas::{self, operations},
};

/// The headers of responses, and their descriptions.
const HEADERS: [(&str, &str); 9] = [
    ("ETag", "The version, for `If-Match` and `If-None-Match`."),
    (
        "Idempotent-Replayed",
        "`true` when this is the stored response of an earlier request with the same `Idempotency-Key`.",
    ),
    (
        "Link",
        "The next page as `rel=\"next\"`. Absent on the last page.",
    ),
    ("Location", "The URL of the new resource."),
    (
        "RateLimit",
        "The rest of each rate limit: `r` requests now, and more after `t` seconds. A structured field \
         (draft-ietf-httpapi-ratelimit-headers), for example `\"tenant\";r=599;t=1, \"user\";r=0;t=12`.",
    ),
    (
        "RateLimit-Policy",
        "The rate limits of the request: `q` requests in `w` seconds, and a burst of `tenantry-burst` where that \
         differs. For example `\"tenant\";q=600;w=60, \"user\";q=120;w=60`.",
    ),
    ("Retry-After", "Seconds to wait before the next attempt."),
    (
        "Tenant-Resolved-By",
        "What named the tenant: `credential`, `header`, `subdomain`, `custom_domain` or `body`.",
    ),
    (
        "X-Request-ID",
        "The id of the request in the logs. A valid id that the client sends is used.",
    ),
];

/// The parameters of paths that mean the same everywhere, and their descriptions.
const PATH_PARAMETERS: [(&str, &str); 9] = [
    ("a", "The number of the earlier version, from 1."),
    ("b", "The number of the later version, from 1."),
    ("code", "An error code."),
    ("feature", "The name of a plan feature, a limit or a meter."),
    ("id", "The id of the resource."),
    ("key", "The key of the resource."),
    ("meter", "The key of a meter."),
    ("n", "The number of the version, from 1."),
    ("user_id", "The id of a user."),
];

/// Adds to every operation what all operations of its kind have: errors, headers, links to the operations that read what
/// it creates. An operation itself names only its own error codes, in `x-errors`, and who may call it, in `security`: `api_key`
/// where its permission can be a scope of API keys.
pub(crate) fn complete(document: &mut OpenApi) {
    document.servers = Some(vec![Server::new("/")]);
    let mut used = BTreeSet::new();
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            used.extend(add_errors(operation));
            add_headers(operation);
            describe_parameters(operation);
            // Without it, a reader cannot tell a public operation from one whose security was left out.
            operation.security.get_or_insert_default();
        }
    }
    schemas::complete(document);
    links::complete(document);
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT");
    let bearer = bearer
        .description(Some(
            "An access token of a user of a tenant, from `POST /api/v1/auth/login`.",
        ))
        .build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    let api_key = ApiKeyValue::with_description(
        api_key::HEADER,
        "An API key, from `POST /api/v1/api-keys`. `Authorization: Bearer` takes it too.",
    );
    components.add_security_scheme("api_key", SecurityScheme::ApiKey(ApiKey::Header(api_key)));
    let operator = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT");
    let operator = operator
        .description(Some(
            "An access token of an operator of the platform, from `POST /api/v1/admin/login`.",
        ))
        .build();
    components.add_security_scheme("operator", SecurityScheme::Http(operator));
    components.headers = HEADERS
        .map(|(name, about)| (name.to_owned(), header(about).into()))
        .into();
    for (status, code) in used {
        let example = ExampleBuilder::new()
            .summary(code.title())
            .value(Some(example(status, code)))
            .build();
        let name = name_of_example(status, code);
        components.examples.insert(name, example.into());
    }
}

/// Adds a response for every error, and returns the errors: each a status and a code.
fn add_errors(operation: &mut Operation) -> Errors {
    let mut codes = own_codes(operation);
    let common = common_codes(operation).into_iter();
    codes.extend(common.map(|code| (code.status(), code)));
    let mut by_status: BTreeMap<u16, Errors> = BTreeMap::new();
    for (status, code) in &codes {
        by_status.entry(*status).or_default().insert((*status, *code));
    }
    let responses = &mut operation.responses.responses;
    for (status, codes) in by_status {
        responses
            .entry(status.to_string())
            .or_insert_with(|| problem(&codes).into());
    }
    codes.into_iter().collect()
}

/// The codes that the operation names itself, each with its status. `403 mfa_required` names another status than the code's
/// own.
fn own_codes(operation: &mut Operation) -> Vec<(u16, ErrorCode)> {
    let named = operation
        .extensions
        .as_mut()
        .and_then(|extensions| extensions.remove("x-errors"));
    let codes = named
        .iter()
        .filter_map(Value::as_array)
        .flatten()
        .filter_map(Value::as_str);
    let with_status = |text: &str| match text.split_once(' ') {
        Some((status, code)) => Some((status.parse().ok()?, ErrorCode::parse(code)?)),
        None => ErrorCode::parse(text).map(|code| (code.status(), code)),
    };
    codes.filter_map(with_status).collect()
}

/// The codes that follow from what the operation takes.
fn common_codes(operation: &Operation) -> Vec<ErrorCode> {
    use ErrorCode as Code;

    let (guarded, operator) = (operation.security.is_some(), is_for_operators(operation));
    let has_body = operation.request_body.is_some();
    let body = [
        Code::MalformedJson,
        Code::RequestTimeout,
        Code::PayloadTooLarge,
        Code::UnsupportedMediaType,
    ];
    let credential = [Code::Unauthenticated, Code::TokenExpired, Code::TokenRevoked];
    let in_tenant = [Code::Forbidden, Code::TenantMismatch, Code::TenantGone];
    let any = [Code::InvalidRequest, Code::Internal];
    let fields = [Code::ValidationFailed, Code::UnknownField];
    let list = takes(operation, ParameterIn::Query, "cursor");
    let keyed = [Code::IdempotencyKeyReused, Code::IdempotencyInProgress];
    let rules: [(bool, &[Code]); 12] = [
        (true, &any),
        (guarded || has_body, &[Code::Unavailable]),
        (is_limited(operation), &[Code::RateLimited]),
        (guarded, &credential),
        (guarded && !operator, &in_tenant),
        // Each permission of operators is one of some roles; where it needs a recent factor, the operation names that itself.
        (operator, &[Code::Forbidden]),
        (
            guarded && takes(operation, ParameterIn::Path, "id"),
            &[Code::NotFound],
        ),
        (has_body, &body),
        (has_body || list, &fields),
        (list, &[Code::InvalidCursor]),
        (
            takes(operation, ParameterIn::Header, "If-Match"),
            &[Code::StaleVersion],
        ),
        (takes(operation, ParameterIn::Header, "Idempotency-Key"), &keyed),
    ];
    rules
        .into_iter()
        .filter(|(applies, _)| *applies)
        .flat_map(|(_, codes)| codes)
        .copied()
        .collect()
}

fn describe_parameters(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        let RefOr::T(parameter) = parameter else { continue };
        if parameter.parameter_in == ParameterIn::Path && parameter.description.is_none() {
            let known = PATH_PARAMETERS.iter().find(|(name, _)| *name == parameter.name);
            parameter.description = known.map(|(_, about)| (*about).to_owned());
        }
    }
}

fn takes(operation: &Operation, place: ParameterIn, name: &str) -> bool {
    operation
        .parameters
        .iter()
        .flatten()
        .any(|parameter| match parameter {
            RefOr::T(parameter) => parameter.parameter_in == place && parameter.name == name,
            RefOr::Ref(_) => false,
        })
}

/// What has a body and asks for no credential is where one is presented or made, and what is open to everybody is held to a
/// rate of the address, probes excepted. An operator has a bucket, as a tenant and a user have.
fn is_limited(operation: &Operation) -> bool {
    let tagged = |name: &str| operation.tags.iter().flatten().any(|tag| tag == name);
    let probe = ["health", "liveness", "readiness", "health_detailed"]
        .iter()
        .any(|id| operation.operation_id.as_deref() == Some(*id));
    let open = tagged("Branding") || (tagged("System") && !probe);
    (operation.security.is_some() && !probe) || operation.request_body.is_some() || open
}

/// Whether it asks for the credential of an operator.
fn is_for_operators(operation: &Operation) -> bool {
    operation.tags.iter().flatten().any(|tag| tag == "Operators") && operation.security.is_some()
}

/// Every answer has a request id, and one from within a tenant says how it got there, and how much it may ask for. A conditional read
/// may have nothing new to say; a change is refused (412) where what it excludes exists.
fn add_headers(operation: &mut Operation) {
    let is_change = operation.responses.responses.contains_key("412");
    if takes(operation, ParameterIn::Header, "If-None-Match") && !is_change {
        let unchanged = ResponseBuilder::new().description("The client's copy is current.");
        let unchanged = unchanged.header("ETag", header("")).build();
        operation
            .responses
            .responses
            .insert("304".into(), unchanged.into());
    }
    let authentication = operation
        .tags
        .iter()
        .flatten()
        .any(|tag| ["Authentication", "Branding"].contains(&tag.as_str()));
    let keyed = takes(operation, ParameterIn::Header, "Idempotency-Key");
    let of_tenant = authentication || (operation.security.is_some() && !is_for_operators(operation));
    let limits = is_limited(operation).then_some(["RateLimit-Policy", "RateLimit"]);
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        let success = status.starts_with('2') || status.starts_with('3');
        let common = ["X-Request-ID"]
            .into_iter()
            .chain((of_tenant && success).then_some("Tenant-Resolved-By"))
            .chain(
                limits
                    .into_iter()
                    .flatten()
                    .filter(|_| success || status == "429"),
            )
            .chain(["429", "503"].contains(&status.as_str()).then_some("Retry-After"))
            .chain((keyed && success).then_some("Idempotent-Replayed"));
        for name in common {
            response.headers.insert(name.into(), header("").into());
        }
        for (name, header) in &mut response.headers {
            if HEADERS.iter().any(|(known, _)| known == name) {
                *header = RefOr::Ref(Ref::new(format!("#/components/headers/{name}")));
            }
        }
    }
}

/// Errors: each a status and a code.
type Errors = BTreeSet<(u16, ErrorCode)>;

fn problem(errors: &Errors) -> Response {
    let refer = |name: &str| RefOr::Ref(Ref::new(format!("#/components/examples/{name}")));
    let named = errors
        .iter()
        .map(|(status, code)| (code.as_str(), refer(&name_of_example(*status, *code))));
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .examples_from_iter(named);
    let names: BTreeSet<_> = errors
        .iter()
        .map(|(_, code)| format!("`{}`", code.as_str()))
        .collect();
    let names: Vec<_> = names.into_iter().collect();
    ResponseBuilder::new()
        .description(names.join(", "))
        .content("application/problem+json", content.build())
        .build()
}

/// A code that has another status than usual has an example of its own.
fn name_of_example(status: u16, code: ErrorCode) -> String {
    if status == code.status() {
        code.as_str().to_owned()
    } else {
        format!("{}_{status}", code.as_str())
    }
}

fn example(status: u16, code: ErrorCode) -> Value {
    json!({
        "type": format!("/problems/{}", code.as_str()),
        "title": code.title(),
        "status": status,
        "detail": code.about(),
        "instance": "/api/v1/…",
        "code": code.as_str(),
        "request_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11",
    })
}

fn header(about: &str) -> Header {
    let text = ObjectBuilder::new().schema_type(Type::String);
    HeaderBuilder::new()
        .schema(Some(text))
        .description(Some(about))
        .build()
}
