//! Notes of tenants, served by axum: another web framework over the use cases and the database of Tenantry.
//!
//! Users, sessions and API keys are those of a Tenantry server over the same database. A credential gives a [`Cx`], the context of
//! its tenant, and a transaction is opened in that context only.

mod auth;
mod problem;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{
    DefaultBodyLimit, Path,
    rejection::{JsonRejection, PathRejection},
};
use axum::http::{StatusCode, header::LOCATION};
use axum::{Extension, Json, Router, middleware::from_fn_with_state, response::IntoResponse, routing::get};
use sea_orm::entity::prelude::*;
use serde::{Deserialize, Serialize};
use tenantry_domain::kernel::{Check, ErrorCode, Failure, Page, PageRequest, Permission};
use tenantry_domain::store::Work;
use tenantry_migration::TenantTable;
use tenantry_persistence::{IntoActiveModel, tenant_tx};
use tenantry_tenancy::{Changed, Cx, Tenancy};
use tokio::net::TcpListener;

pub use crate::problem::Problem;

tenantry_migration::migrator! {
    /// Tenantry's migrations, and the table of notes behind them.
    pub Migrator {
        "m20270101_000001_notes" => TenantTable::new("notes")
            .column("text", "text NOT NULL")
            .index("notes_newest_idx", &["created_at", "id"]),
    }
}

/// A note.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize)]
#[sea_orm(table_name = "notes")]
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
///
/// # Errors
/// Those of the listener.
pub async fn serve(
    app: Arc<Tenancy>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let routes = router(Arc::clone(&app)).into_make_service_with_connect_info::<SocketAddr>();
    let service = axum::serve(listener, routes).with_graceful_shutdown(shutdown);
    tenantry_compose::beside(&app, service.into_future()).await
}

/// The routes. Each is behind the layer that authenticates.
fn router(app: Arc<Tenancy>) -> Router {
    Router::new()
        .route("/notes", get(list).post(create))
        .route("/notes/{id}", get(read))
        .method_not_allowed_fallback(async || Problem::from(ErrorCode::MethodNotAllowed))
        .route_layer(from_fn_with_state(app, auth::authenticate))
        .fallback(async || Problem::from(ErrorCode::NotFound))
        .layer(DefaultBodyLimit::max(16 * 1024))
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
    cx.require(Permission::ReadTasks)?;
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
    cx.require(Permission::WriteTasks)?;
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
        cx.record(work, Changed::new("note.created", id)).await
    })
    .await?;
    let location = [(LOCATION, format!("/notes/{id}"))];
    Ok((StatusCode::CREATED, location, Json(note)))
}

async fn read(
    Extension(cx): Extension<Cx>,
    id: Result<Path<Uuid>, PathRejection>,
) -> Result<Json<Model>, Problem> {
    cx.require(Permission::ReadTasks)?;
    let Path(id) = id.map_err(|_| ErrorCode::NotFound)?;
    let read = async |work: &mut Work| {
        let note = tenant_tx(work)?.get::<Entity>(id).await?;
        note.ok_or_else(|| Failure::from(ErrorCode::NotFound))
    };
    Ok(Json(cx.read(read).await?))
}
