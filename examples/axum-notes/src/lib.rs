//! Notes of tenants, served by axum: another web framework over the use cases and the database of Tenantry.
//!
//! Users, sessions and API keys are those of a Tenantry server over the same database. A credential gives a [`Cx`], the context of
//! its tenant, and a transaction is opened in that context only.

mod auth;
mod bounds;
mod problem;

use std::sync::Arc;

use axum::extract::Path;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::http::{StatusCode, header::LOCATION};
use axum::{Extension, Json, Router, middleware::from_fn_with_state, response::IntoResponse, routing::get};
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};
use tenantry_domain::kernel::{
    Check, ErrorCode, Failure, Needs as _, Page, PageRequest, PermissionError, PermissionRegistry, Role,
};
use tenantry_domain::permission;
use tenantry_domain::store::Work;
use tenantry_migration::TenantTable;
use tenantry_persistence::{IntoActiveModel, tenant_tx};
use tenantry_tenancy::{Changed, Cx, Forwarding, Tenancy};
use tokio::net::TcpListener;

pub use crate::bounds::Bounds;
pub use crate::problem::Problem;

tenantry_migration::migrator! {
    /// Tenantry's migrations, and the table of notes behind them.
    pub Migrator {
        "m20270101_000001_axum_notes" => TenantTable::new("axum_notes")
            .column("text", "text NOT NULL")
            // A rule that only the database knows: nobody shouts.
            .check("axum_notes_text_is_calm", "text <> upper(text)")
            .index("axum_notes_newest_idx", &["created_at", "id"]),
    }
}

/// What the migrations of this service make, as `tenantry doctor --record FILE --beyond-own` writes it.
pub const CATALOGUE: &str = include_str!("../catalogue.txt");

permission! {
    /// See the notes of the tenant.
    pub ReadNotes = "axum_notes.read" reads for Role::Viewer;
    /// Write notes.
    pub WriteNotes = "axum_notes.write" writes for Role::Member;
}

/// The product's permissions and those of this service.
///
/// # Errors
/// [`PermissionError`] when names collide.
pub fn permissions() -> Result<PermissionRegistry, PermissionError> {
    PermissionRegistry::new([ReadNotes::PERMISSION, WriteNotes::PERMISSION])
}

/// A note.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize)]
#[sea_orm(table_name = "axum_notes")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    #[serde(skip)]
    pub tenant_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub text: String,
    pub created_at: chrono::DateTime<chrono::Utc>,
}
tenantry_persistence::tenant_entity!(Entity, Model, ActiveModel, Column);

/// Serves on a listener until `shutdown` ends.
pub async fn serve(
    app: Arc<Tenancy>,
    forwarding: Forwarding,
    bounds: Bounds,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) {
    let routes = router(Arc::clone(&app), forwarding, bounds);
    tenantry_compose::beside(&app, bounds::serve(routes, listener, bounds, shutdown)).await;
}

/// The routes. Each is behind the layer that authenticates, and that before the one that reads the body.
fn router(app: Arc<Tenancy>, forwarding: Forwarding, bounds: Bounds) -> Router {
    let admission = (app, Arc::new(forwarding));
    Router::new()
        .route("/notes", get(list).post(create))
        .route("/notes/{id}", get(read))
        .method_not_allowed_fallback(async || Problem::from(ErrorCode::MethodNotAllowed))
        .route_layer(from_fn_with_state(bounds, bounds::read_body))
        .route_layer(from_fn_with_state(admission, auth::authenticate))
        .fallback(async || Problem::from(ErrorCode::NotFound))
        .layer(from_fn_with_state(bounds, bounds::answer_in_time))
}

/// A note to create.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewNote {
    text: String,
}

/// The newest notes.
#[derive(Serialize)]
struct Notes {
    data: Vec<Model>,
    has_more: bool,
}

async fn list(Extension(cx): Extension<Cx>) -> Result<Json<Notes>, Problem> {
    cx.require(ReadNotes::PERMISSION)?;
    let newest = PageRequest {
        after: None,
        limit: 100,
    };
    let read = async |work: &mut Work| tenant_tx(work)?.find::<Entity>().newest(newest).await;
    let Page { items: data, next } = cx.read(read).await?;
    let has_more = next.is_some();
    Ok(Json(Notes { data, has_more }))
}

async fn create(
    Extension(cx): Extension<Cx>,
    body: Result<Json<NewNote>, JsonRejection>,
) -> Result<impl IntoResponse, Problem> {
    cx.require(WriteNotes::PERMISSION)?;
    let Json(NewNote { text }) = body.map_err(problem::unreadable)?;
    Check::all(|check| check.text("/text", &text, 1..=1_000))?;
    let (tenant_id, id, created_at) = (cx.scope().tenant().uuid(), cx.ids().uuid(), cx.now());
    let note = Model {
        tenant_id,
        id,
        text,
        created_at,
    };
    cx.write(async |work| {
        let row = note.clone().into_active_model();
        tenant_tx(work)?.insert(row).await?;
        cx.record(work, Changed::new("axum_note.created", id)).await
    })
    .await?;
    let location = [(LOCATION, format!("/notes/{id}"))];
    Ok((StatusCode::CREATED, location, Json(note)))
}

async fn read(
    Extension(cx): Extension<Cx>,
    id: Result<Path<Uuid>, PathRejection>,
) -> Result<Json<Model>, Problem> {
    cx.require(ReadNotes::PERMISSION)?;
    let Path(id) = id.map_err(|_| ErrorCode::NotFound)?;
    let read = async |work: &mut Work| {
        let note = tenant_tx(work)?.get::<Entity>(id).await?;
        note.ok_or_else(|| Failure::from(ErrorCode::NotFound))
    };
    Ok(Json(cx.read(read).await?))
}
