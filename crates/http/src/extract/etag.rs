use std::future::{Ready, ready};

use actix_web::{
    FromRequest, HttpRequest, HttpResponse,
    dev::Payload,
    http::header::{self, HeaderName},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tenantry_domain::kernel::{ErrorCode, hex};
use tenantry_tenancy::Precondition;
use utoipa::{
    IntoParams,
    openapi::{
        ObjectBuilder, Required, Type,
        path::{Parameter, ParameterBuilder, ParameterIn},
    },
};

use crate::{ApiError, entity};

/// The entity tag of a version.
pub(crate) fn tag(version: i64) -> String {
    format!("\"{version}\"")
}

/// The entity tag of a version of something that is also made of what has no version there: a plan, a tenant's name. It is
/// the version and a digest of what is shown, so that a cache notices either.
pub(crate) fn tag_of(version: i64, view: &impl Serialize) -> String {
    let view = serde_json::to_vec(view).unwrap_or_default();
    let digest = Sha256::digest(&view);
    format!("\"{version}.{}\"", hex(&digest[..DIGEST / 2]))
}

/// What the OpenAPI document says of `If-Match`: `*`, or a list of entity tags.
const TAGS: &str = r#"^(\*|(W/)?"[!#-~]*"([ ]*,[ ]*(W/)?"[!#-~]*")*)$"#;

/// How many digits the digest in a tag has.
const DIGEST: usize = 16;

/// `If-Match`: which version the caller means to change or delete; `If-None-Match`: which it does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IfMatch(pub Precondition);

impl FromRequest for IfMatch {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let read = |name: &str, header, parse: fn(&str) -> Option<Precondition>| {
            let refuse = || {
                ApiError::new(ErrorCode::InvalidRequest)
                    .with_detail(format!("{name} is not a list of entity tags."))
            };
            match field(request, header) {
                None => Ok(Precondition::None),
                Some(text) => text.as_deref().and_then(parse).ok_or_else(refuse),
            }
        };
        let expected = read("If-Match", header::IF_MATCH, if_match);
        let excluded = read("If-None-Match", header::IF_NONE_MATCH, if_none_match);
        ready(expected.and_then(|expected| Ok(Self(both(expected, excluded?)))))
    }
}

fn both(one: Precondition, other: Precondition) -> Precondition {
    match (one, other) {
        (Precondition::None, only) | (only, Precondition::None) => only,
        both => Precondition::Both(Box::new(both)),
    }
}

/// `If-None-Match`: which versions the caller has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IfNoneMatch(Option<Tags>);

impl IfNoneMatch {
    /// 200, or 304 when the caller has this version already. Caches have to ask each time, and an answer to
    /// one credential is no answer to another: what `GET /tenant` shows depends on nothing else.
    pub fn answer(&self, version: i64, view: &impl Serialize) -> HttpResponse {
        self.private(&tag(version), || entity(version, view))
    }

    /// The same for what is also made of something that has no version there: see [`tag_of`].
    pub(crate) fn answer_of(&self, version: i64, view: &impl Serialize) -> HttpResponse {
        let tag = tag_of(version, view);
        self.private(&tag, || {
            HttpResponse::Ok()
                .insert_header((header::ETAG, tag.as_str()))
                .json(view)
        })
    }

    /// The same for what is no JSON.
    pub(crate) fn answer_with(&self, tag: &str, content_type: &'static str, body: String) -> HttpResponse {
        self.private(tag, || {
            let mut response = HttpResponse::Ok();
            response
                .insert_header((header::ETAG, tag))
                .content_type(content_type);
            response.body(body)
        })
    }

    fn private(&self, tag: &str, whole: impl FnOnce() -> HttpResponse) -> HttpResponse {
        let mut response = if self.knows(tag) {
            HttpResponse::NotModified()
                .insert_header((header::ETAG, tag))
                .finish()
        } else {
            whole()
        };
        let headers = response.headers_mut();
        headers.insert(
            header::CACHE_CONTROL,
            header::HeaderValue::from_static("private, no-cache"),
        );
        headers.insert(header::VARY, header::HeaderValue::from_static("Authorization"));
        response
    }

    fn knows(&self, tag: &str) -> bool {
        self.knows_tag(tag.trim_matches('"'))
    }

    /// Whether the caller has what this tag stands for, without its quotes.
    pub(crate) fn knows_tag(&self, opaque: &str) -> bool {
        match &self.0 {
            None => false,
            Some(Tags::Any) => true,
            // Weak comparison (RFC 9110 section 13.1.2).
            Some(Tags::These(tags)) => tags.iter().any(|known| known.opaque == opaque),
        }
    }
}

impl FromRequest for IfNoneMatch {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        // A field that cannot be read is no condition: the worst that happens is a full answer.
        ready(Ok(Self(
            field(request, header::IF_NONE_MATCH)
                .flatten()
                .and_then(|text| parse(&text)),
        )))
    }
}

/// An `If-Match` or `If-None-Match` field.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Tags {
    Any,
    These(Vec<Tag>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Tag {
    weak: bool,
    opaque: String,
}

/// `If-Match` compares strongly (RFC 9110 section 13.1.1): a weak tag, or one that we never gave out, is of
/// no version.
fn if_match(text: &str) -> Option<Precondition> {
    Some(match parse(text)? {
        Tags::Any => Precondition::None,
        Tags::These(tags) => Precondition::Versions(
            tags.iter()
                .filter(|tag| !tag.weak)
                .filter_map(|tag| version(&tag.opaque))
                .collect(),
        ),
    })
}

/// For a change `If-None-Match` compares weakly (RFC 9110 section 13.1.2); `*` is anything that is there.
fn if_none_match(text: &str) -> Option<Precondition> {
    Some(match parse(text)? {
        Tags::Any => Precondition::Absent,
        Tags::These(tags) => {
            Precondition::NoneOf(tags.iter().filter_map(|tag| version(&tag.opaque)).collect())
        }
    })
}

/// A version is written in one way only. What may follow it says of what else an answer was made, and nothing of what a
/// change would overwrite.
fn version(opaque: &str) -> Option<i64> {
    let digest = |digest: &str| digest.len() == DIGEST && digest.bytes().all(|b| b.is_ascii_hexdigit());
    let number = match opaque.split_once('.') {
        Some((number, rest)) if digest(rest) => number,
        Some(_) | None => opaque,
    };
    let version: i64 = number.parse().ok()?;
    (version.to_string() == number).then_some(version)
}

/// All lines of a field as one; `Some(None)` when it is there but is not text.
fn field(request: &HttpRequest, name: HeaderName) -> Option<Option<String>> {
    let lines: Vec<_> = request
        .headers()
        .get_all(name)
        .map(|line| line.to_str().ok())
        .collect();
    if lines.is_empty() {
        None
    } else {
        Some(lines.into_iter().collect::<Option<Vec<_>>>().map(|l| l.join(",")))
    }
}

/// `*`, or a list of entity tags (RFC 9110 section 8.8.3).
fn parse(text: &str) -> Option<Tags> {
    if text.trim() == "*" {
        return Some(Tags::Any);
    }
    let mut tags = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let (weak, quoted) = rest.strip_prefix("W/").map_or((false, rest), |rest| (true, rest));
        let (opaque, after) = quoted.strip_prefix('"')?.split_once('"')?;
        tags.push(Tag {
            weak,
            opaque: opaque.to_owned(),
        });
        let after = after.trim_start();
        // Empty elements of a list are to be ignored (RFC 9110 section 5.6.1.2), a missing comma is not.
        rest = after.trim_start_matches(|c: char| c == ',' || c.is_whitespace());
        if !rest.is_empty() && !after.starts_with(',') {
            return None;
        }
    }
    if tags.is_empty() {
        None
    } else {
        Some(Tags::These(tags))
    }
}

impl IntoParams for IfMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            parameter(
                "If-Match",
                "Change the resource only if its ETag is one of these; otherwise answer 412 `stale_version`.",
                Some(TAGS),
            ),
            parameter(
                "If-None-Match",
                "`*` changes nothing that exists: the answer is 412 `stale_version`.",
                Some(TAGS),
            ),
        ]
    }
}

impl IntoParams for IfNoneMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![parameter(
            "If-None-Match",
            "Answer 304 if the ETag is one of these. A value that is no list of entity tags is ignored.",
            None,
        )]
    }
}

fn parameter(name: &str, description: &str, pattern: Option<&str>) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .pattern(pattern)
                .examples([serde_json::json!("\"3\"")])
                .build(),
        ))
        .build()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn if_match_means_versions() {
        assert_eq!(if_match("*"), Some(Precondition::None));
        assert_eq!(if_match("\"3\""), Some(Precondition::Versions(vec![3])));
        assert_eq!(
            if_match(" \"3\" , \"5\""),
            Some(Precondition::Versions(vec![3, 5]))
        );
        assert_eq!(
            if_match("\"3\",, \"5\","),
            Some(Precondition::Versions(vec![3, 5]))
        );
        assert_eq!(if_match("W/\"3\""), Some(Precondition::Versions(vec![])));
        assert_eq!(
            if_match("\"abc\", \"03\", \"+3\""),
            Some(Precondition::Versions(vec![]))
        );
        let made_of_more = tag_of(3, &"view");
        assert_eq!(if_match(&made_of_more), Some(Precondition::Versions(vec![3])));
        assert_eq!(if_match("\"3.x\", \"3.\""), Some(Precondition::Versions(vec![])));
    }

    #[test]
    fn if_match_that_is_no_list_of_tags_is_refused() {
        for malformed in ["", "3", "\"3", "\"3\" \"4\"", ",", "w/\"3\"", "*, \"3\""] {
            assert_eq!(if_match(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn if_none_match_compares_weakly() {
        let seen = |text: &str| IfNoneMatch(parse(text));
        assert!(seen("\"3\"").knows("\"3\""));
        assert!(seen("W/\"3\"").knows("\"3\""));
        assert!(seen("\"1\", \"3\"").knows("\"3\""));
        assert!(seen("*").knows("\"3\""));
        assert!(!seen("\"4\"").knows("\"3\""));
        assert!(!seen("3").knows("\"3\""));
        assert!(!IfNoneMatch::default().knows("\"3\""));
    }

    #[test]
    fn if_none_match_keeps_a_change_from_what_is_there() {
        let read = |name: &'static str, value: &'static str| {
            let request = TestRequest::default()
                .insert_header((name, value))
                .to_http_request();
            IfMatch::from_request(&request, &mut Payload::None).into_inner()
        };
        let holds = |value, version| read("If-None-Match", value).unwrap().0.check(version).is_ok();
        assert!(holds("*", 0) && !holds("*", 1));
        assert!(holds("\"3\"", 4) && !holds("\"3\"", 3) && !holds("\"4\", W/\"3\"", 3));
        assert!(read("If-None-Match", "3").is_err());
        let request = TestRequest::default()
            .insert_header(("If-Match", "\"3\", \"4\""))
            .insert_header(("If-None-Match", "\"4\""))
            .to_http_request();
        let both = IfMatch::from_request(&request, &mut Payload::None)
            .into_inner()
            .unwrap()
            .0;
        assert!(both.check(3).is_ok() && both.check(4).is_err() && both.check(5).is_err());
    }

    #[test]
    fn a_known_version_has_an_empty_answer_with_its_tag() {
        let response = IfNoneMatch(parse("\"3\"")).answer(3, &"view");
        assert_eq!(response.status(), 304);
        assert_eq!(response.headers().get(header::ETAG).unwrap(), "\"3\"");
        let response = IfNoneMatch(parse("\"2\"")).answer(3, &"view");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers().get(header::VARY).unwrap(), "Authorization");
    }
}
