use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header, header::HeaderValue},
    web::{Bytes, ServiceConfig},
};
use chrono::{DateTime, Utc};
use futures_util::stream::unfold;
use serde::{Deserialize, Serialize};
use tenantry_domain::archive::{Export, ExportStatus};
use tenantry_domain::kernel::{ErrorCode, ExportId, Page, TenantId, UserId};
use tenantry_tenancy::Cx;
use tenantry_tenancy::archive::export;
use utoipa::{IntoParams, ToSchema};

use crate::extract::guest::Guest;
use crate::extract::page::{NoParams, PageParams};
use crate::v1::kernel::schema;
use crate::{Answer, ApiError, Ctx, Endpoint, Id, PageView, Paged, Query, permission::ExportTenant};

/// Bytes of an archive that are in memory at a time.
const CHUNK: usize = 256 * 1024;

/// An export of the tenant.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TenantExport, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11", "status": "ready", "rows_written": 1200, "bytes": 48200,
    "failure": null, "created_at": "2026-01-31T12:00:00Z", "finished_at": "2026-01-31T12:00:05Z",
    "expires_at": "2026-02-07T12:00:05Z", "download_url": null, "download_expires_at": null,
})))]
pub(crate) struct ExportView {
    #[schema(value_type = Uuid)]
    id: ExportId,
    /// The user whose data is exported; absent when it is everything of the tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Uuid, required = false)]
    user_id: Option<UserId>,
    #[schema(value_type = schema::ExportStatus)]
    status: ExportStatus,
    /// The number of rows that are written so far.
    rows_written: u64,
    /// The size of the archive in bytes.
    #[schema(required = true)]
    bytes: Option<u64>,
    /// Why it failed.
    #[schema(required = true)]
    failure: Option<String>,
    created_at: DateTime<Utc>,
    #[schema(required = true)]
    finished_at: Option<DateTime<Utc>>,
    /// When the archive is deleted.
    #[schema(required = true)]
    expires_at: Option<DateTime<Utc>>,
    /// A path of this server that answers with the archive and needs no credential, as in `curl -s -o acme.tar "$A$URL"`; null unless the
    /// archive is ready. Each read of the export returns a new one.
    #[schema(required = true)]
    download_url: Option<String>,
    /// When that path stops working.
    #[schema(required = true)]
    download_expires_at: Option<DateTime<Utc>>,
}

impl ExportView {
    pub(super) async fn of(cx: &Cx, export: Export) -> Result<Self, ApiError> {
        let link = export::link(cx, &export).await?;
        let url = link.as_ref().map(|link| {
            let (id, tenant, signature) = (export.id, link.tenant, &link.signature);
            let expires = link.expires_at.timestamp();
            format!("/api/v1/export-links/{id}?tenant={tenant}&expires={expires}&signature={signature}")
        });
        Ok(Self {
            id: export.id,
            user_id: export.person,
            status: export.status,
            rows_written: export.rows_written,
            bytes: export.bytes,
            failure: export.failure,
            created_at: export.created_at,
            finished_at: export.finished_at,
            expires_at: export.expires_at,
            download_url: url,
            download_expires_at: link.map(|link| link.expires_at),
        })
    }
}

/// What a signed link has.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LinkParams {
    #[param(value_type = Uuid)]
    tenant: TenantId,
    /// Seconds since 1970.
    expires: i64,
    #[param(min_length = 64, max_length = 64)]
    signature: String,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/tenant/exports").get(list).post(create))
        .service(Endpoint::at("/tenant/exports/{id}").get(read))
        .service(
            Endpoint::at("/tenant/exports/{id}/download")
                .without_deadline()
                .get(download),
        )
        .service(
            Endpoint::anonymous("/export-links/{id}")
                .without_deadline()
                .get(follow),
        );
}

/// Export the tenant
///
/// Begins an export of everything that the tenant owns: a job writes an archive of one point in time, without passwords, keys and other
/// secrets. One export is under way at a time, and five archives are kept, for seven days each (409). Also possible in a suspended
/// tenant. An admin who has a second factor gives it recently. Minimum role: admin.
#[utoipa::path(
    post, path = "/api/v1/tenant/exports", operation_id = "export_tenant", tag = "Tenant",
    responses((status = 202, description = "The export is under way.", body = ExportView, headers(("Location")))),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["conflict", "exports_unavailable", "403 mfa_required"]))),
)]
pub(crate) async fn create(cx: Ctx<ExportTenant>) -> Answer {
    let export = export::request(&cx).await?;
    let location = format!("/api/v1/tenant/exports/{}", export.id);
    Ok(HttpResponse::Accepted()
        .insert_header((header::LOCATION, location))
        .json(ExportView::of(&cx, export).await?))
}

/// List exports
///
/// Newest first. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/tenant/exports", operation_id = "list_tenant_exports", tag = "Tenant",
    params(PageParams),
    responses(
        (status = 200, description = "The exports, newest first.", body = PageView<ExportView>, headers(("Link"))),
    ),
    security(("bearer" = [])),
)]
pub(crate) async fn list(cx: Ctx<ExportTenant>, query: Paged<NoParams>) -> Answer {
    let page = export::list(&cx, query.request(cx.scope())?).await?;
    let mut items = Vec::new();
    for export in page.items {
        items.push(ExportView::of(&cx, export).await?);
    }
    let next = page.next;
    Ok(query.answer(cx.scope(), Page { items, next }))
}

/// Get an export
///
/// Shows how far it is and, once it is ready, a link to its archive. An admin who has a second factor gets the link when it was given
/// recently. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/tenant/exports/{id}", operation_id = "get_tenant_export", tag = "Tenant",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "The export.", body = ExportView)),
    security(("bearer" = [])),
)]
pub(crate) async fn read(cx: Ctx<ExportTenant>, id: Id<ExportId>) -> Answer {
    let export = export::get(&cx, id.0).await?;
    Ok(HttpResponse::Ok().json(ExportView::of(&cx, export).await?))
}

/// Download an export
///
/// Returns the archive, a tar file, or the part of it that `Range` asks for. 409 until it is ready, 404 after it has expired. An admin
/// who has a second factor gives it recently. Minimum role: admin.
#[utoipa::path(
    get, path = "/api/v1/tenant/exports/{id}/download", operation_id = "download_tenant_export", tag = "Tenant",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "The archive.", body = String, content_type = "application/x-tar", headers(("ETag"))),
        (status = 206, description = "The part of it.", body = String, content_type = "application/x-tar", headers(("ETag"))),
    ),
    security(("bearer" = [])),
    extensions(("x-errors" = json!(["conflict", "exports_unavailable", "range_not_satisfiable", "403 mfa_required"]))),
)]
pub(crate) async fn download(cx: Ctx<ExportTenant>, id: Id<ExportId>, request: HttpRequest) -> Answer {
    serve(&cx, id.0, &request).await
}

/// Follow a link to an export
///
/// Returns the archive as `download_tenant_export` does, to the bearer of a `download_url`. 404 after the link has expired; 403 from an
/// address that the security policy of the tenant refuses.
#[utoipa::path(
    get, path = "/api/v1/export-links/{id}", operation_id = "follow_export_link", tag = "Tenant",
    params(("id" = Uuid, Path), LinkParams),
    responses(
        (status = 200, description = "The archive.", body = String, content_type = "application/x-tar", headers(("ETag"))),
        (status = 206, description = "The part of it.", body = String, content_type = "application/x-tar", headers(("ETag"))),
    ),
    extensions(("x-errors" = json!(["validation_failed", "unknown_field", "forbidden", "not_found", "conflict", "unavailable", "exports_unavailable", "range_not_satisfiable"]))),
)]
pub(crate) async fn follow(
    guest: Guest,
    id: Id<ExportId>,
    query: Query<LinkParams>,
    request: HttpRequest,
) -> Answer {
    let link = &query.0;
    let signed = (link.tenant, link.expires, link.signature.as_str());
    let cx = export::open_link(guest.app(), id.0, signed, guest.origin()).await?;
    serve(&cx, id.0, &request).await
}

/// A part of an archive: where it begins, and where it ends.
type Part = (u64, u64);

async fn serve(cx: &Cx, id: ExportId, request: &HttpRequest) -> Answer {
    let export = export::ready(cx, id).await?;
    let size = export.bytes.unwrap_or_default();
    let etag = format!("\"{id}\"");
    let part = part(request, &etag, size)?;
    let (start, end) = part.unwrap_or((0, size));
    let archive = Archive {
        cx: cx.clone(),
        id,
        at: start,
        end,
    };
    // A file that is gone is 404 rather than a response that breaks off.
    export::part(cx, id, start, 1).await?;
    export::record_download(cx, &export).await?;
    let mut response = HttpResponse::build(part.map_or(StatusCode::OK, |_| StatusCode::PARTIAL_CONTENT));
    if part.is_some() {
        response.insert_header((header::CONTENT_RANGE, format!("bytes {start}-{}/{size}", end - 1)));
    }
    Ok(response
        .content_type("application/x-tar")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header((header::ACCEPT_RANGES, "bytes"))
        .insert_header((header::ETAG, etag))
        .insert_header((
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{id}.tar\""),
        ))
        .no_chunking(end - start)
        .streaming(Box::pin(unfold(archive, |mut archive| async move {
            let chunk = archive.chunk().await?;
            Some((chunk.map_err(actix_web::Error::from), archive))
        }))))
}

/// The part that `Range` asks for (RFC 9110, section 14). Several ranges, other units and ranges of another archive are ignored.
fn part(request: &HttpRequest, etag: &str, size: u64) -> Result<Option<Part>, ApiError> {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    if text(header::IF_RANGE).is_some_and(|known| known != etag) {
        return Ok(None);
    }
    let range = text(header::RANGE).and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = range else {
        return Ok(None);
    };
    let (first, last) = (first.trim(), last.trim());
    let number = |text: &str| {
        text.parse::<u64>()
            .ok()
            .filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let part = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, last.saturating_add(1).min(size)),
        (Some(first), None) if last.is_empty() => (first, size),
        (None, Some(most)) if first.is_empty() => (size.saturating_sub(most), size),
        _ => return Ok(None),
    };
    if part.0 < part.1 {
        return Ok(Some(part));
    }
    let error = ApiError::new(ErrorCode::RangeNotSatisfiable);
    let error = error.with_detail(format!(
        "The archive has {size} bytes, and the range lies behind them."
    ));
    let length = HeaderValue::from_str(&format!("bytes */{size}"));
    Err(length.map_or(ErrorCode::Internal.into(), |length| {
        error.with_header(header::CONTENT_RANGE, length)
    }))
}

/// An archive that is sent.
struct Archive {
    cx: Cx,
    id: ExportId,
    at: u64,
    end: u64,
}

impl Archive {
    /// The next part; `None` at the end. An archive that is deleted meanwhile is cut off.
    async fn chunk(&mut self) -> Option<Result<Bytes, ApiError>> {
        let left = usize::try_from(self.end - self.at).unwrap_or(CHUNK).min(CHUNK);
        if left == 0 {
            return None;
        }
        let bytes = match export::part(&self.cx, self.id, self.at, left).await {
            Ok(bytes) if bytes.is_empty() => return Some(Err(ErrorCode::NotFound.into())),
            Ok(bytes) => bytes,
            Err(error) => return Some(Err(error.into())),
        };
        self.at += bytes.len() as u64;
        Some(Ok(bytes.into()))
    }
}
