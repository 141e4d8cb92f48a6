use std::{
    future::{Ready, ready},
    str::FromStr,
};

use actix_web::{FromRequest, HttpRequest, dev::Payload};
use tenantry_domain::kernel::ErrorCode;

use crate::ApiError;

/// The id in a path. One that cannot be an id is the id of nothing: 404, like that of a foreign or deleted
/// row.
#[derive(Debug, Clone, Copy)]
pub struct Id<T>(pub T);

/// The two ids in a path.
#[derive(Debug, Clone, Copy)]
pub struct Ids<A, B>(pub A, pub B);

impl<T: FromStr> FromRequest for Id<T> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(segment(request, 0).map(Self))
    }
}

impl<A: FromStr, B: FromStr> FromRequest for Ids<A, B> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let first = segment(request, 0);
        ready(first.and_then(|first| Ok(Self(first, segment(request, 1)?))))
    }
}

fn segment<T: FromStr>(request: &HttpRequest, index: usize) -> Result<T, ApiError> {
    let text = request.match_info().iter().nth(index).map(|(_, text)| text);
    // Nothing has a name with U+0000: there is no column that takes it.
    let text = text.filter(|text| !text.contains('\0'));
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| ApiError::new(ErrorCode::NotFound))
}
