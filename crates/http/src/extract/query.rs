use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload, web};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tenantry_domain::kernel::{FieldError, Invalid, pointer_segment};

use crate::ApiError;
use crate::extract::shape::{Leaves, Tree};

/// The query of a request that is no list. Use it with types that `deny_unknown_fields`; a pointer to a
/// parameter is `/query/<name>`.
#[derive(Debug, Clone)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequest for Query<T> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let query = pairs(request.query_string());
        ready(query.and_then(|pairs| Ok(Self(decode(&pairs, Vec::new())?))))
    }
}

/// The parameters of a query, each there once.
///
/// # Errors
/// When one is there twice, is not UTF-8, or has U+0000.
pub(crate) fn pairs(query: &str) -> Result<Vec<(String, String)>, ApiError> {
    let broken = || Invalid::one("/query", "invalid_value", "must be percent-encoded UTF-8");
    let pairs = web::Query::<Vec<(String, String)>>::from_query(query)
        .map_err(|_| broken())?
        .into_inner();
    for (index, (name, value)) in pairs.iter().enumerate() {
        // What is not UTF-8 arrives with replacement characters in it; nobody means those.
        if name.contains('\u{fffd}') || value.contains('\u{fffd}') {
            return Err(broken().into());
        }
        let refuse = |code, detail| Invalid::one(format!("/query/{}", pointer_segment(name)), code, detail);
        // There is no column that takes it.
        if name.contains('\0') {
            return Err(Invalid::one("/query", "invalid_text", "must not have a name with U+0000").into());
        }
        if value.contains('\0') {
            return Err(refuse("invalid_text", "must not contain U+0000").into());
        }
        if pairs[..index].iter().any(|(earlier, _)| earlier == name) {
            return Err(refuse("duplicate_field", "is there more than once").into());
        }
    }
    Ok(pairs)
}

/// Parameters as a type. `errors` are those that are known already.
///
/// # Errors
/// Every parameter that does not fit.
pub(crate) fn decode<T: DeserializeOwned>(
    pairs: &[(String, String)],
    errors: Vec<FieldError>,
) -> Result<T, Invalid> {
    let members = pairs
        .iter()
        .map(|(name, value)| (name.clone(), Value::from(value.as_str())));
    let tree = Tree {
        value: &Value::Object(members.collect()),
        leaves: Leaves::Text,
        root: "/query",
        size: pairs.iter().map(|(name, value)| name.len() + value.len()).sum(),
    };
    tree.read(errors)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use tenantry_domain::kernel::{ErrorCode, ProjectId};
    use tenantry_domain::work::TaskStatus;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Sample {
        project_id: Option<ProjectId>,
        status: Option<TaskStatus>,
        include_deleted: bool,
        q: Option<String>,
    }

    fn read(query: &str) -> Result<Sample, (ErrorCode, String, &'static str)> {
        let read = pairs(query).and_then(|pairs| Ok(decode(&pairs, Vec::new())?));
        read.map_err(|error: ApiError| {
            let field = error.errors()[0].clone();
            (error.code(), field.pointer, field.code)
        })
    }

    #[test]
    fn parameters_have_types() {
        let sample = read("status=in_progress&include_deleted=true&q=a%20b%2Bc+d").unwrap();
        assert_eq!(sample.status, Some(TaskStatus::InProgress));
        assert!(sample.include_deleted);
        assert_eq!(sample.q.as_deref(), Some("a b+c d"));
        assert_eq!(read(""), Ok(Sample::default()));
        let id = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11";
        assert_eq!(
            read(&format!("project_id={id}")).unwrap().project_id,
            id.parse().ok()
        );
    }

    #[test]
    fn what_is_wrong_has_a_pointer() {
        use ErrorCode::{UnknownField, ValidationFailed};
        assert_eq!(
            read("statsu=todo"),
            Err((UnknownField, "/query/statsu".into(), "unknown_field"))
        );
        assert_eq!(
            read("status=lost"),
            Err((ValidationFailed, "/query/status".into(), "invalid_value"))
        );
        assert_eq!(
            read("status="),
            Err((ValidationFailed, "/query/status".into(), "invalid_value"))
        );
        assert_eq!(
            read("include_deleted=1"),
            Err((ValidationFailed, "/query/include_deleted".into(), "invalid_value"))
        );
        assert_eq!(
            read("project_id=x"),
            Err((ValidationFailed, "/query/project_id".into(), "invalid_id"))
        );
        assert_eq!(
            read("q=a&q=b"),
            Err((ValidationFailed, "/query/q".into(), "duplicate_field"))
        );
        assert_eq!(
            read("q=%ff"),
            Err((ValidationFailed, "/query".into(), "invalid_value"))
        );
        assert_eq!(
            read("q=a%00b"),
            Err((ValidationFailed, "/query/q".into(), "invalid_text"))
        );
        assert_eq!(
            read("a%00b=q"),
            Err((ValidationFailed, "/query".into(), "invalid_text"))
        );
    }

    #[test]
    fn every_parameter_that_does_not_fit_is_reported() {
        let pairs = pairs("status=lost&include_deleted=1&statsu=todo&project_id=x").unwrap();
        let errors = decode::<Sample>(&pairs, Vec::new()).unwrap_err().0;
        let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        let names = ["include_deleted", "project_id", "status", "statsu"];
        assert_eq!(pointers.len(), 4);
        for name in names {
            assert!(
                pointers.contains(&format!("/query/{name}").as_str()),
                "{pointers:?}"
            );
        }
    }
}
