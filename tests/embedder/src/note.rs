//! Notes on tasks: entity, use cases, routes.

use actix_web::web::ServiceConfig;
use serde::{Deserialize, Serialize};
use tenantry_domain::kernel::{Check, Invalid, Page, PageRequest, Permission, Position, StoreError, TaskId};
use tenantry_http::permission::{ReadTasks, WriteTasks};
use tenantry_http::{Answer, ApiError, Body, Ctx, Endpoint, Id, IdempotencyKey, PageView, Paged, created};
use tenantry_persistence::{ColumnTrait as _, Set, tenant_tx};
use tenantry_tenancy::Cx;
use utoipa::{OpenApi, ToSchema};

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "notes")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub task_id: Uuid,
        pub text: String,
        pub created_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
    tenantry_persistence::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

/// Where the notes are.
pub fn routes(config: &mut ServiceConfig) {
    config.service(Endpoint::at("/tasks/{id}/notes").get(list).post(create));
    config.service(Endpoint::at("/notes/{id}").get(read));
}

/// What the OpenAPI document says of them.
pub fn document() -> utoipa::openapi::OpenApi {
    #[derive(OpenApi)]
    #[openapi(paths(list, create, read))]
    struct Notes;
    Notes::openapi()
}

/// A note.
#[derive(Serialize, ToSchema)]
#[schema(as = Note)]
struct NoteView {
    id: uuid::Uuid,
    task_id: uuid::Uuid,
    text: String,
    created_at: chrono::DateTime<chrono::Utc>,
}

/// A note to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewNote)]
struct NewNote {
    text: String,
}

/// Notes have no filter.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoFilter {}

async fn list_notes(cx: &Cx, task: TaskId, page: PageRequest) -> Result<Page<Model>, ApiError> {
    cx.require(Permission::ReadTasks)?;
    let page = cx
        .read(async |work| {
            if work.tasks().find(task).await?.is_none() {
                return Ok(None);
            }
            let notes = tenant_tx(work)?
                .find::<Entity>()
                .filter(Column::TaskId.eq(task.uuid()));
            let position = |row: &Model| Position {
                created_at: row.created_at,
                id: row.id,
            };
            Ok::<_, StoreError>(Some(
                notes
                    .page((Column::CreatedAt, Column::Id), page, position)
                    .await?,
            ))
        })
        .await?;
    page.ok_or_else(|| ApiError::new(tenantry_domain::kernel::ErrorCode::NotFound))
}

async fn get_note(cx: &Cx, id: uuid::Uuid) -> Result<Model, ApiError> {
    cx.require(Permission::ReadTasks)?;
    let note = cx
        .read(async |work| {
            let note = tenant_tx(work)?
                .find::<Entity>()
                .filter(Column::Id.eq(id))
                .one()
                .await?;
            let Some(note) = note else { return Ok(None) };
            // A note is gone with its task.
            let task = work.tasks().find(note.task_id.into()).await?;
            Ok::<_, StoreError>(task.map(|_| note))
        })
        .await?;
    note.ok_or_else(|| ApiError::new(tenantry_domain::kernel::ErrorCode::NotFound))
}

async fn add_note(cx: &Cx, task: TaskId, data: NewNote) -> Result<Model, ApiError> {
    cx.require(Permission::WriteTasks)?;
    check(&data)?;
    let (id, created_at) = (cx.ids().uuid(), cx.now());
    let not_found = || ApiError::new(tenantry_domain::kernel::ErrorCode::NotFound);
    cx.write(async |work| {
        work.tasks().find_for_update(task).await?.ok_or_else(not_found)?;
        let row = ActiveModel {
            id: Set(id),
            task_id: Set(task.uuid()),
            text: Set(data.text.clone()),
            created_at: Set(created_at),
            ..Default::default()
        };
        tenant_tx(work)?.insert(row).await?;
        work.audit()
            .record(cx.changed::<()>("note.created", "note", id, None, None))
            .await?;
        let note = tenant_tx(work)?.find::<Entity>().filter(Column::Id.eq(id));
        note.one().await?.ok_or_else(not_found)
    })
    .await
}

fn check(data: &NewNote) -> Result<(), Invalid> {
    let mut check = Check::new();
    check.text("/text", &data.text, 1..=1_000);
    check.verdict()
}

/// The notes on a task
#[utoipa::path(get, path = "/api/v1/tasks/{id}/notes", operation_id = "list_notes", tag = "Notes",
    params(("id" = uuid::Uuid, Path)), responses((status = 200, body = PageView<NoteView>)),
    security(("bearer" = []), ("api_key" = [])))]
async fn list(cx: Ctx<ReadTasks>, task: Id<TaskId>, query: Paged<NoFilter>) -> Answer {
    let page = list_notes(&cx, task.0, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(NoteView::from)))
}

/// Makes a note on a task
#[utoipa::path(post, path = "/api/v1/tasks/{id}/notes", operation_id = "create_note", tag = "Notes",
    params(("id" = uuid::Uuid, Path), IdempotencyKey), request_body = NewNote, responses((status = 201, body = NoteView)),
    security(("bearer" = []), ("api_key" = [])))]
async fn create(cx: Ctx<WriteTasks>, task: Id<TaskId>, key: IdempotencyKey, body: Body<NewNote>) -> Answer {
    let add = async |cx: &Cx| add_note(cx, task.0, body.0).await;
    key.once(&cx, add, |note| {
        created(&format!("/api/v1/notes/{}", note.id), None, &NoteView::from(note))
    })
    .await
}

/// One note
#[utoipa::path(get, path = "/api/v1/notes/{id}", operation_id = "get_note", tag = "Notes",
    params(("id" = uuid::Uuid, Path)), responses((status = 200, body = NoteView)),
    security(("bearer" = []), ("api_key" = [])))]
async fn read(cx: Ctx<ReadTasks>, id: Id<uuid::Uuid>) -> Answer {
    let note = get_note(&cx, id.0).await?;
    Ok(actix_web::HttpResponse::Ok().json(NoteView::from(note)))
}

impl From<Model> for NoteView {
    fn from(row: Model) -> Self {
        Self {
            id: row.id,
            task_id: row.task_id,
            text: row.text,
            created_at: row.created_at,
        }
    }
}
