use actix_web::{HttpResponse, http::header};
use serde::Serialize;

use crate::ApiError;
use crate::extract::etag::tag;

/// What a handler returns.
pub type Answer = Result<HttpResponse, ApiError>;

/// 201 for something new: where it is and, when it has versions, which one this is.
pub fn created(location: &str, version: Option<i64>, view: &impl Serialize) -> HttpResponse {
    let mut response = HttpResponse::Created();
    response.insert_header((header::LOCATION, location));
    if let Some(version) = version {
        response.insert_header((header::ETAG, tag(version)));
    }
    response.json(view)
}

/// 200 for something in the version it has now.
pub fn entity(version: i64, view: &impl Serialize) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::ETAG, tag(version)))
        .json(view)
}

/// 204.
pub fn no_content() -> HttpResponse {
    HttpResponse::NoContent().finish()
}
