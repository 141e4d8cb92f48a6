use std::{
    fmt::Write,
    future::{Ready, ready},
};

use actix_web::{FromRequest, HttpRequest, HttpResponse, dev::Payload, http::header};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tenantry_domain::kernel::{Invalid, OperatorId, Page, PageRequest, TenantId};
use tenantry_domain::operations::{OperatorScope, RowRange};
use tenantry_domain::tenant::TenantScope;
use tenantry_tenancy::admin::operator_rows::RowPage;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::ApiError;
use crate::extract::{cursor::Binding, query};

/// How many rows a page has when the caller does not say.
const DEFAULT_LIMIT: u32 = 50;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Page)]
pub struct PageView<T> {
    /// The rows.
    pub data: Vec<T>,
    /// The `cursor` of the next page; null on the last one.
    #[schema(required = true)]
    pub next_cursor: Option<String>,
}

/// The filter of a list that has none.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoFilter {}

/// Which page of a list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "it only describes what `Paged` reads")]
pub(crate) struct PageParams {
    /// The maximum number of rows.
    #[param(minimum = 1, maximum = 100, default = 50)]
    limit: Option<u32>,
    /// The `next_cursor` of the previous page. It is valid for this list, filter and tenant.
    #[param(min_length = 1)]
    cursor: Option<String>,
}

/// Whoever reads lists: a cursor is bound to them.
pub trait Lists {
    /// The tenant, or the operator, that the cursor belongs to.
    fn binds_to(&self) -> Uuid;
}

impl Lists for TenantScope {
    fn binds_to(&self) -> Uuid {
        self.tenant().uuid()
    }
}

impl Lists for OperatorScope {
    fn binds_to(&self) -> Uuid {
        self.operator().map_or_else(Uuid::nil, OperatorId::uuid)
    }
}

/// Nothing to filter by.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoParams {}

/// The query of a list: its filter (a type that `deny_unknown_fields`), and which page of it.
#[derive(Debug, Clone)]
pub struct Paged<F> {
    /// The query's other parameters.
    pub filter: F,
    /// How many rows at the most.
    pub limit: u32,
    cursor: Option<String>,
    limit_given: bool,
    path: String,
    pairs: Vec<(String, String)>,
}

impl<F> Paged<F> {
    /// Whether the query names a page.
    pub(crate) fn has_cursor(&self) -> bool {
        self.cursor.is_some()
    }

    /// The page as a use case wants it.
    ///
    /// # Errors
    /// `invalid_cursor` when the cursor was not given out for this list, filter and tenant.
    pub fn request(&self, reader: &impl Lists) -> Result<PageRequest, ApiError> {
        let after = self
            .cursor
            .as_deref()
            .map(|cursor| self.binding(reader).open(cursor))
            .transpose()?;
        Ok(PageRequest {
            limit: self.limit,
            after,
        })
    }

    /// The answer with a page.
    pub fn answer<V: Serialize>(&self, reader: &impl Lists, page: Page<V>) -> HttpResponse {
        let next = page.next.map(|position| self.binding(reader).seal(position));
        self.respond(page.items, next)
    }

    /// Below which number the page begins, for the lists that are numbered.
    ///
    /// # Errors
    /// See [`Paged::request`].
    pub fn before(&self, reader: &impl Lists) -> Result<Option<i64>, ApiError> {
        self.cursor
            .as_deref()
            .map(|cursor| self.binding(reader).open_number(cursor))
            .transpose()
    }

    /// The answer with a page of a numbered list, made of up to `limit + 1` rows: the one too many only tells
    /// that there is a next page.
    pub fn answer_numbered<V: Serialize>(
        &self,
        reader: &impl Lists,
        mut rows: Vec<V>,
        number: impl Fn(&V) -> i64,
    ) -> HttpResponse {
        let limit = self.limit as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let last = rows.last().filter(|_| more).map(number);
        self.respond(rows, last.map(|last| self.binding(reader).seal_number(last)))
    }

    /// Which rows of tenants the page has.
    ///
    /// # Errors
    /// See [`Paged::request`].
    pub(crate) fn row_range(
        &self,
        reader: &impl Lists,
        tenant: Option<TenantId>,
    ) -> Result<RowRange, ApiError> {
        let after = self
            .cursor
            .as_deref()
            .map(|cursor| self.binding(reader).open_row(cursor))
            .transpose()?;
        Ok(RowRange {
            tenant,
            after,
            limit: self.limit,
        })
    }

    /// The answer with a page of rows of tenants.
    pub(crate) fn answer_rows<V: Serialize>(&self, reader: &impl Lists, page: RowPage<V>) -> HttpResponse {
        let next = page.next.map(|position| self.binding(reader).seal_row(position));
        self.respond(page.rows, next)
    }

    fn binding(&self, reader: &impl Lists) -> Binding {
        Binding::new(reader.binds_to(), &self.path, &self.pairs)
    }

    fn respond<V: Serialize>(&self, data: Vec<V>, next_cursor: Option<String>) -> HttpResponse {
        let mut response = HttpResponse::Ok();
        if let Some(cursor) = &next_cursor {
            response.insert_header((header::LINK, format!("<{}>; rel=\"next\"", self.link(cursor))));
        }
        response.json(PageView { data, next_cursor })
    }

    /// The address of the next page: this one's with another cursor.
    fn link(&self, cursor: &str) -> String {
        let limit = self.limit.to_string();
        let pairs = self
            .pairs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let limit = self.limit_given.then_some(("limit", limit.as_str()));
        let pairs = pairs.chain(limit).chain(std::iter::once(("cursor", cursor)));
        let query: Vec<_> = pairs
            .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
            .collect();
        format!("{}?{}", self.path, query.join("&"))
    }
}

impl<F: DeserializeOwned> FromRequest for Paged<F> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(read(request.path(), request.query_string()))
    }
}

fn read<F: DeserializeOwned>(path: &str, query_string: &str) -> Result<Paged<F>, ApiError> {
    let mut pairs = query::pairs(query_string)?;
    let mut take = |name: &str| {
        let index = pairs.iter().position(|(given, _)| given == name)?;
        Some(pairs.remove(index).1)
    };
    let (limit, cursor) = (take("limit"), take("cursor"));
    let rows = limit.as_deref().map_or(Ok(DEFAULT_LIMIT), parse_limit);
    let errors = rows.as_ref().err().map(|Invalid(errors)| errors.clone());
    Ok(Paged {
        filter: query::decode(&pairs, errors.unwrap_or_default())?,
        limit: rows?,
        cursor,
        limit_given: limit.is_some(),
        path: path.to_owned(),
        pairs,
    })
}

fn parse_limit(text: &str) -> Result<u32, Invalid> {
    let limit = text.parse().ok().filter(|limit| (1..=100).contains(limit));
    limit.ok_or_else(|| Invalid::one("/query/limit", "out_of_range", "must be an integer from 1 to 100"))
}

/// Percent-encodes all but the unreserved characters (RFC 3986 section 2.3).
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            // Writing into a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use tenantry_domain::kernel::ErrorCode;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Filter {
        q: Option<String>,
    }

    fn paged(query: &str) -> Result<Paged<Filter>, ApiError> {
        read("/api/v1/tasks", query)
    }

    #[test]
    fn the_limit_is_1_to_100_and_50_by_default() {
        assert_eq!(paged("").unwrap().limit, 50);
        assert_eq!(paged("limit=100").unwrap().limit, 100);
        for wrong in ["0", "101", "-1", "x", "", "1.0", "99999999999"] {
            let error = paged(&format!("limit={wrong}")).unwrap_err();
            assert_eq!(
                (error.code(), error.errors()[0].pointer.as_str()),
                (ErrorCode::ValidationFailed, "/query/limit")
            );
        }
    }

    #[test]
    fn the_rest_of_the_query_is_the_filter() {
        assert_eq!(paged("limit=3&q=a%20b").unwrap().filter.q.as_deref(), Some("a b"));
        let both = paged("limit=0&offset=3").unwrap_err();
        assert_eq!(both.errors().len(), 2);
        assert_eq!(paged("q=a%00b").unwrap_err().errors()[0].pointer, "/query/q");
        assert_eq!(paged("offset=3").unwrap_err().code(), ErrorCode::UnknownField);
        assert_eq!(
            paged("limit=3&limit=4").unwrap_err().code(),
            ErrorCode::ValidationFailed
        );
    }

    #[test]
    fn the_link_keeps_the_query_but_for_the_cursor() {
        let link = paged("cursor=old&q=a%26b+%C3%A9&limit=2").unwrap().link("new");
        assert_eq!(link, "/api/v1/tasks?q=a%26b%20%C3%A9&limit=2&cursor=new");
        assert_eq!(paged("").unwrap().link("new"), "/api/v1/tasks?cursor=new");
    }
}
