//! The description of the API, for machines and for people.

use std::sync::Arc;

use actix_web::{
    HttpResponse,
    http::header,
    web::{self, Data, Path, ServiceConfig},
};
use tenantry_domain::ErrorCode;
use utoipa_swagger_ui::Config;

use crate::{Answer, Api, ApiError, Endpoint};

/// What Swagger UI needs: its own scripts, inline styles, and the document from here.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::open("/openapi.json").get(document))
        .service(web::redirect("/docs", "/docs/"))
        .service(Endpoint::open("/docs/{file:.*}").get(ui));
}

/// Get the OpenAPI document
///
/// This document, as JSON.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "openapi", tag = "System",
    responses(
        (status = 200, description = "The OpenAPI 3.1 document.", body = Value, content_type = "application/json"),
    ),
)]
pub(crate) async fn document(api: Data<Api>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .json(api.document.as_ref())
}

async fn ui(file: Path<String>) -> Answer {
    // Without "none" the page would ask a validator on the internet about the document.
    let config = Config::from("/openapi.json")
        .validator_url("none")
        .persist_authorization(false);
    let file = utoipa_swagger_ui::serve(&file, Arc::new(config));
    let file = file.map_err(|error| ApiError::new(ErrorCode::Internal).caused_by(error.to_string()))?;
    let file = file.ok_or_else(|| ApiError::new(ErrorCode::NotFound))?;
    let mut response = HttpResponse::Ok();
    if file.gzpipped {
        response.insert_header((header::CONTENT_ENCODING, "gzip"));
    }
    Ok(response
        .content_type(file.content_type)
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::CACHE_CONTROL, "public, max-age=3600"))
        .body(file.bytes.into_owned()))
}
