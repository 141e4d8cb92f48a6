//! Notes on tasks: a complete service that embeds Tenantry.

use sea_orm::entity::prelude::*;
use tenantry::prelude::*;

tenantry::migrator! {
    /// Tenantry's migrations, and the table of notes behind them.
    pub Migrator {
        "m20270101_000001_notes" => TenantTable::new("notes")
            .belongs_to("task_id", "tasks", OnDelete::Cascade)
            .column("text", "text NOT NULL")
            // A rule that only the database knows: nobody shouts.
            .check("notes_text_is_calm", "text <> upper(text)"),
    }
}

tenantry::permission! {
    /// See the notes on tasks.
    pub ReadNotes = "notes.read" reads for Role::Viewer;
    /// Write notes on tasks.
    pub WriteNotes = "notes.write" writes for Role::Member;
}

/// What this service adds to Tenantry.
pub fn extension() -> Extension {
    Extension::new("notes")
        .migrations::<Migrator>()
        .catalogue(include_str!("../catalogue.txt"))
        .permission::<ReadNotes>()
        .permission::<WriteNotes>()
        .serve(routes())
}

tenantry::routes! { routes:
    "/tasks/{id}/notes" => get(list), post(create);
    "/notes/{id}" => get(read);
}

/// A note.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel, Serialize, ToSchema)]
#[sea_orm(table_name = "notes")]
#[schema(as = Note)]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    #[serde(skip)]
    pub tenant_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub task_id: Uuid,
    pub text: String,
    pub created_at: chrono::DateTime<chrono::Utc>,
}
tenantry::tenant_entity!(Entity, Model, ActiveModel, Column);

/// A note to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewNote {
    #[schema(min_length = 1, max_length = 1000)]
    text: String,
}

/// List the notes on a task
#[utoipa::path(get, path = "/api/v1/tasks/{id}/notes", operation_id = "list_notes", tag = "Notes",
    params(("id" = Uuid, Path)), responses((status = 200, body = PageView<Model>)), security(("bearer" = []), ("api_key" = [])))]
async fn list(cx: Ctx<ReadNotes>, task: Id<TaskId>, query: Paged<NoFilter>) -> Answer {
    let request = query.request(cx.scope())?;
    let read = async |work: &mut Work| -> Result<_, ApiError> {
        work.tasks().find(task.0).await?.ok_or(ErrorCode::NotFound)?;
        let tx = tenant_tx(work)?;
        let notes = tx.find::<Entity>().filter(Column::TaskId.eq(task.0.uuid()));
        Ok(notes.newest(request).await?)
    };
    Ok(query.answer(cx.scope(), cx.read(read).await?))
}

/// Create a note on a task
#[utoipa::path(post, path = "/api/v1/tasks/{id}/notes", operation_id = "create_note", tag = "Notes",
    params(("id" = Uuid, Path), IdempotencyKey), request_body = NewNote, responses((status = 201, body = Model)),
    security(("bearer" = []), ("api_key" = [])))]
async fn create(cx: Ctx<WriteNotes>, task: Id<TaskId>, key: IdempotencyKey, body: Body<NewNote>) -> Answer {
    let add = async |cx: &Cx| add(cx, task.0, &body.0.text).await;
    let answer = |note: Model| created(&format!("/api/v1/notes/{}", note.id), None, &note);
    key.once(&cx, add, answer).await
}

async fn add(cx: &Cx, task: TaskId, text: &str) -> Result<Model, ApiError> {
    cx.require(WriteNotes::PERMISSION)?;
    Check::all(|check| check.text("/text", text, 1..=1_000))?;
    let note = Model {
        tenant_id: cx.scope().tenant().uuid(),
        id: cx.ids().uuid(),
        task_id: task.uuid(),
        text: text.to_owned(),
        created_at: cx.now(),
    };
    cx.write(async |work| {
        let task = work.tasks().find_for_update(task).await?;
        task.ok_or(ErrorCode::NotFound)?;
        tenant_tx(work)?.insert(note.clone().into_active_model()).await?;
        cx.record(work, Changed::new("note.created", note.id)).await?;
        // What the unit of work returns is what an answer of the idempotency key is made of.
        Ok(note.clone())
    })
    .await
}

/// Get a note
#[utoipa::path(get, path = "/api/v1/notes/{id}", operation_id = "get_note", tag = "Notes",
    params(("id" = Uuid, Path)), responses((status = 200, body = Model)), security(("bearer" = []), ("api_key" = [])))]
async fn read(cx: Ctx<ReadNotes>, id: Id<Uuid>) -> Answer {
    let read = async |work: &mut Work| -> Result<_, ApiError> {
        let note = tenant_tx(work)?.get::<Entity>(id.0).await?;
        let note = note.ok_or(ErrorCode::NotFound)?;
        // A note is gone with its task.
        let task = work.tasks().find(note.task_id.into()).await?;
        task.map(|_| note).ok_or(ErrorCode::NotFound.into())
    };
    Ok(HttpResponse::Ok().json(cx.read(read).await?))
}
