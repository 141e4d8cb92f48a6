use std::future::{Ready, ready};

use actix_web::{FromRequest, HttpRequest, dev::Payload, web};
use serde::{
    Deserializer,
    de::{
        DeserializeOwned, Error as _, IntoDeserializer, Visitor,
        value::{Error, MapDeserializer},
    },
    forward_to_deserialize_any,
};
use tenantry_domain::Invalid;

use crate::{ApiError, decode::field_error};

/// The query of a request that is no list. Use it with types that `deny_unknown_fields`; a pointer to a
/// parameter is `/query/<name>`.
#[derive(Debug, Clone)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned> FromRequest for Query<T> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(pairs(request.query_string()).and_then(decode).map(Self))
    }
}

/// The parameters of a query, each there once.
///
/// # Errors
/// When one is there twice, or is not UTF-8.
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
        if pairs[..index].iter().any(|(earlier, _)| earlier == name) {
            return Err(Invalid::one(
                format!("/query/{name}"),
                "duplicate_field",
                "is there more than once",
            )
            .into());
        }
    }
    Ok(pairs)
}

/// Parameters as a type.
pub(crate) fn decode<T: DeserializeOwned>(pairs: Vec<(String, String)>) -> Result<T, ApiError> {
    let pairs = pairs.into_iter().map(|(name, value)| (name, Text(value)));
    serde_path_to_error::deserialize(MapDeserializer::<_, Error>::new(pairs)).map_err(|error| {
        Invalid(vec![field_error(
            "/query",
            error.path(),
            &error.inner().to_string(),
        )])
        .into()
    })
}

/// The text of a parameter, which becomes whatever type is asked of it.
struct Text(String);

impl<'de> IntoDeserializer<'de, Error> for Text {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! parse {
    ($($method:ident $visit:ident $expected:literal)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.0.parse().map_err(|_| Error::custom(concat!("must be ", $expected)))?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Text {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(self.0)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(self.0.into_deserializer())
    }

    parse! {
        deserialize_bool visit_bool "true or false"
        deserialize_i32 visit_i32 "an integer in range"
        deserialize_i64 visit_i64 "an integer in range"
        deserialize_u32 visit_u32 "an integer in range"
        deserialize_u64 visit_u64 "an integer in range"
        deserialize_f64 visit_f64 "a number"
    }

    forward_to_deserialize_any! {
        i8 i16 i128 u8 u16 u128 f32 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map
        struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use tenantry_domain::{ErrorCode, ProjectId, TaskStatus};

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
        pairs(query).and_then(decode).map_err(|error| {
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
    }
}
