//! The description of the API, for machines and for people.

use std::{
    fmt::Display,
    sync::{Arc, OnceLock},
};

use actix_http::{ResponseHead, encoding::Encoder};
use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse,
    body::to_bytes,
    http::{
        StatusCode,
        header::{self, AcceptEncoding, ContentEncoding, Encoding},
    },
    web::{self, Bytes, Data, Path, ServiceConfig},
};
use sha2::{Digest as _, Sha256};
use tenantry_domain::kernel::{ErrorCode, hex};
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui::Config;

use crate::{Answer, Api, ApiError, Endpoint, IfNoneMatch};

/// What Swagger UI needs: its own scripts, inline styles, and the document from here.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::anonymous("/openapi.json").get(document))
        .service(Endpoint::anonymous("/openapi.yaml").get(document_as_yaml))
        .service(web::redirect("/", "/docs/"))
        .service(web::redirect("/docs", "/docs/"))
        .service(Endpoint::anonymous("/docs/{file:.*}").get(ui));
}

/// Get the OpenAPI document
///
/// This document, as JSON.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "openapi", tag = "System",
    params(IfNoneMatch),
    responses(
        (status = 200, description = "The OpenAPI 3.1 document.", body = Value, content_type = "application/json"),
    ),
)]
pub(crate) async fn document(request: HttpRequest, api: Data<Api>, seen: IfNoneMatch) -> Answer {
    api.texts.json()?.answer(&request, &seen).await
}

/// Get the OpenAPI document as YAML
///
/// This document, as YAML.
#[utoipa::path(
    get, path = "/openapi.yaml", operation_id = "openapi_yaml", tag = "System",
    params(IfNoneMatch),
    responses(
        (status = 200, description = "The OpenAPI 3.1 document.", body = String, content_type = "application/yaml"),
    ),
)]
pub(crate) async fn document_as_yaml(request: HttpRequest, api: Data<Api>, seen: IfNoneMatch) -> Answer {
    api.texts.yaml()?.answer(&request, &seen).await
}

/// The document as it is served: each text is made once, and compressed once in each coding.
pub(crate) struct Texts {
    document: OpenApi,
    json: OnceLock<Text>,
    yaml: OnceLock<Text>,
}

impl Texts {
    pub fn of(document: OpenApi) -> Self {
        Self {
            document,
            json: OnceLock::new(),
            yaml: OnceLock::new(),
        }
    }

    pub const fn document(&self) -> &OpenApi {
        &self.document
    }

    fn json(&self) -> Result<&Text, ApiError> {
        let json = || serde_json::to_vec(&self.document).map(|bytes| ("application/json", bytes));
        text(&self.json, json)
    }

    fn yaml(&self) -> Result<&Text, ApiError> {
        let yaml = || {
            self.document
                .to_yaml()
                .map(|text| ("application/yaml", text.into_bytes()))
        };
        text(&self.yaml, yaml)
    }
}

fn text<E: Display>(
    once: &OnceLock<Text>,
    make: impl FnOnce() -> Result<(&'static str, Vec<u8>), E>,
) -> Result<&Text, ApiError> {
    if let Some(text) = once.get() {
        return Ok(text);
    }
    let unwritable = |error: E| ApiError::new(ErrorCode::Internal).caused_by(error.to_string());
    let (content_type, bytes) = make().map_err(unwritable)?;
    Ok(once.get_or_init(|| Text::new(content_type, bytes.into())))
}

/// A text, its entity tag, and what has been compressed of it.
struct Text {
    content_type: &'static str,
    digest: String,
    plain: Bytes,
    coded: [(ContentEncoding, OnceLock<Bytes>); 3],
}

impl Text {
    fn new(content_type: &'static str, plain: Bytes) -> Self {
        let digest = hex(&Sha256::digest(&plain)[..16]);
        let codings = [
            ContentEncoding::Brotli,
            ContentEncoding::Gzip,
            ContentEncoding::Zstd,
        ];
        Self {
            content_type,
            digest,
            plain,
            coded: codings.map(|coding| (coding, OnceLock::new())),
        }
    }

    async fn answer(&self, request: &HttpRequest, seen: &IfNoneMatch) -> Answer {
        let mut response = if seen.knows_tag(&self.digest) {
            HttpResponse::NotModified()
        } else {
            HttpResponse::Ok()
        };
        response
            .content_type(self.content_type)
            // Weak, because it is the same in every coding.
            .insert_header((header::ETAG, format!("W/\"{}\"", self.digest)))
            .insert_header((header::CACHE_CONTROL, "public, no-cache"))
            .insert_header((header::VARY, "Accept-Encoding"));
        if seen.knows_tag(&self.digest) {
            return Ok(response.finish());
        }
        let Some((coding, once)) = self.accepted(request) else {
            return Ok(response.body(self.plain.clone()));
        };
        let coded = match once.get() {
            Some(coded) => coded.clone(),
            None => {
                let coded = encode(*coding, self.plain.clone()).await?;
                once.get_or_init(|| coded).clone()
            }
        };
        Ok(response
            .insert_header((header::CONTENT_ENCODING, coding.as_str()))
            .body(coded))
    }

    /// The coding that the client prefers, unless that is none.
    fn accepted(&self, request: &HttpRequest) -> Option<&(ContentEncoding, OnceLock<Bytes>)> {
        let accepted = request.get_header::<AcceptEncoding>()?;
        let offered: Vec<_> = std::iter::once(ContentEncoding::Identity)
            .chain(self.coded.iter().map(|(coding, _)| *coding))
            .map(Encoding::Known)
            .collect();
        let chosen = accepted.negotiate(offered.iter())?;
        self.coded
            .iter()
            .find(|(coding, _)| chosen == Encoding::Known(*coding))
    }
}

async fn encode(coding: ContentEncoding, plain: Bytes) -> Result<Bytes, ApiError> {
    let mut head = ResponseHead::new(StatusCode::OK);
    let coded = to_bytes(Encoder::response(coding, &mut head, plain)).await;
    coded.map_err(|error| ApiError::new(ErrorCode::Internal).caused_by(error.to_string()))
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
