use actix_web::web::ServiceConfig;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use tenantry_domain::kernel::{Patch, ProjectId, TaskId, Time, UserId};
use tenantry_domain::work::{NewTask, Priority, Task, TaskFilter, TaskPatch, TaskStatus};
use tenantry_tenancy::Cx;
use tenantry_tenancy::customization::{product_settings::TASKS_DEFAULT_PRIORITY, setting};
use tenantry_tenancy::work::task;
use utoipa::{IntoParams, ToSchema};

use crate::extract::page::PageParams;
use crate::v1::kernel::schema;
use crate::{
    Answer, Body, Ctx, Endpoint, Id, IdempotencyKey, IfMatch, IfNoneMatch, Moment, PageView, Paged, created,
    entity, no_content,
    permission::{ReadTasks, WriteTasks},
};

/// Something to do in a project.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Task, examples(json!({
    "id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a14", "project_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a13",
    "title": "Build the rocket", "description": null, "status": "todo", "priority": "high",
    "assignee_id": "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12", "due_at": "2026-07-16T13:32:00Z",
    "created_at": "2026-01-31T12:00:00Z", "updated_at": "2026-01-31T12:00:00Z", "version": 1,
})))]
pub(crate) struct TaskView {
    #[schema(value_type = Uuid)]
    id: TaskId,
    #[schema(value_type = Uuid)]
    project_id: ProjectId,
    title: String,
    #[schema(required = true)]
    description: Option<String>,
    #[schema(value_type = schema::TaskStatus)]
    status: TaskStatus,
    #[schema(value_type = schema::Priority)]
    priority: Priority,
    /// The user who is responsible for the task.
    #[schema(value_type = Option<Uuid>, required = true)]
    assignee_id: Option<UserId>,
    /// When the task is due.
    #[schema(required = true)]
    due_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// The number of its versions; the `ETag`.
    version: i64,
}

/// A task to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewTask, examples(json!({
    "title": "Build the rocket", "priority": "high", "due_at": "2026-07-16T13:32:00Z",
})))]
pub(crate) struct NewTaskBody {
    #[schema(min_length = 1, max_length = 200)]
    title: String,
    #[schema(max_length = 20_000)]
    description: Option<String>,
    /// `todo` when absent.
    #[schema(value_type = schema::TaskStatus, required = false)]
    status: Option<TaskStatus>,
    /// The setting `tasks.default_priority` when absent.
    #[schema(value_type = schema::Priority, required = false)]
    priority: Option<Priority>,
    #[schema(value_type = Option<Uuid>)]
    assignee_id: Option<UserId>,
    #[schema(value_type = Option<DateTime<Utc>>)]
    due_at: Option<Moment>,
}

/// A change of a task. An absent field is unchanged.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ChangeTask, examples(json!({"status": "in_progress", "due_at": null})))]
pub(crate) struct ChangeTask {
    /// Moves the task to another project.
    #[serde(default)]
    #[schema(value_type = Uuid, required = false)]
    project_id: Patch<ProjectId>,
    #[serde(default)]
    #[schema(value_type = String, required = false, min_length = 1, max_length = 200)]
    title: Patch<String>,
    /// Null for none.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 20_000)]
    description: Patch<String>,
    #[serde(default)]
    #[schema(value_type = schema::TaskStatus, required = false)]
    status: Patch<TaskStatus>,
    #[serde(default)]
    #[schema(value_type = schema::Priority, required = false)]
    priority: Patch<Priority>,
    /// Null for no assignee.
    #[serde(default)]
    #[schema(value_type = Option<Uuid>)]
    assignee_id: Patch<UserId>,
    /// Null for no end.
    #[serde(default)]
    #[schema(value_type = Option<DateTime<Utc>>)]
    due_at: Patch<Moment>,
}

/// Filters of tasks.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct TaskParams {
    /// Only of this project.
    #[param(value_type = Option<Uuid>)]
    project_id: Option<ProjectId>,
    /// Only of this status.
    #[param(value_type = schema::TaskStatus, inline, required = false)]
    status: Option<TaskStatus>,
    /// Only of this assignee.
    #[param(value_type = Option<Uuid>)]
    assignee_id: Option<UserId>,
    /// Only those whose title contains this text, whatever the case.
    #[param(min_length = 1, max_length = 200)]
    q: Option<String>,
}

/// Filters of the tasks of a project.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ProjectTaskParams {
    /// Only of this status.
    #[param(value_type = schema::TaskStatus, inline, required = false)]
    status: Option<TaskStatus>,
    /// Only of this assignee.
    #[param(value_type = Option<Uuid>)]
    assignee_id: Option<UserId>,
    /// Only those whose title contains this text, whatever the case.
    #[param(min_length = 1, max_length = 200)]
    q: Option<String>,
}

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(Endpoint::at("/tasks").get(list))
        .service(Endpoint::at("/tasks/{id}").get(read).patch(update).delete(delete))
        .service(
            Endpoint::at("/projects/{id}/tasks")
                .get(list_of_project)
                .post(create),
        );
}

/// List tasks
///
/// Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/tasks", operation_id = "list_tasks", tag = "Tasks",
    params(TaskParams, PageParams),
    responses(
        (status = 200, description = "The tasks, newest first.", body = PageView<TaskView>, headers(("Link"))),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn list(cx: Ctx<ReadTasks>, query: Paged<TaskParams>) -> Answer {
    let page = task::list(&cx, &TaskFilter::from(&query.filter), query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(TaskView::from)))
}

/// List the tasks of a project
///
/// Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/projects/{id}/tasks", operation_id = "list_project_tasks", tag = "Tasks",
    params(("id" = Uuid, Path), ProjectTaskParams, PageParams),
    responses(
        (status = 200, description = "The tasks, newest first.", body = PageView<TaskView>, headers(("Link"))),
    ),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn list_of_project(
    cx: Ctx<ReadTasks>,
    id: Id<ProjectId>,
    query: Paged<ProjectTaskParams>,
) -> Answer {
    let filter = TaskFilter::from(&query.filter);
    let page = task::list_of_project(&cx, id.0, &filter, query.request(cx.scope())?).await?;
    Ok(query.answer(cx.scope(), page.map(TaskView::from)))
}

/// Create a task
///
/// Adds a task to a project. Minimum role: member.
#[utoipa::path(
    post, path = "/api/v1/projects/{id}/tasks", operation_id = "create_task", tag = "Tasks",
    params(("id" = Uuid, Path), IdempotencyKey), request_body = NewTaskBody,
    responses((status = 201, description = "The task.", body = TaskView, headers(("ETag"), ("Location")))),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["tenant_suspended"]))),
)]
pub(crate) async fn create(
    cx: Ctx<WriteTasks>,
    id: Id<ProjectId>,
    key: IdempotencyKey,
    body: Body<NewTaskBody>,
) -> Answer {
    let mut body = body.0;
    if body.priority.is_none() {
        body.priority = Some(setting::get(&cx, &TASKS_DEFAULT_PRIORITY).await?);
    }
    let create = async |cx: &Cx| task::create(cx, id.0, body.into()).await;
    key.once(&cx, create, |task| {
        created(
            &format!("/api/v1/tasks/{}", task.id),
            Some(task.version),
            &TaskView::from(task),
        )
    })
    .await
}

/// Get a task
///
/// Minimum role: viewer.
#[utoipa::path(
    get, path = "/api/v1/tasks/{id}", operation_id = "get_task", tag = "Tasks",
    params(("id" = Uuid, Path), IfNoneMatch),
    responses((status = 200, description = "The task.", body = TaskView, headers(("ETag")))),
    security(("bearer" = []), ("api_key" = [])),
)]
pub(crate) async fn read(cx: Ctx<ReadTasks>, id: Id<TaskId>, seen: IfNoneMatch) -> Answer {
    let task = task::get(&cx, id.0).await?;
    Ok(seen.answer(task.version, &TaskView::from(task)))
}

/// Update a task
///
/// A merge patch: an absent field is unchanged, null clears it. Minimum role: member.
#[utoipa::path(
    patch, path = "/api/v1/tasks/{id}", operation_id = "update_task", tag = "Tasks",
    params(("id" = Uuid, Path), IfMatch), request_body = ChangeTask,
    responses((status = 200, description = "The updated task.", body = TaskView, headers(("ETag")))),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["tenant_suspended"]))),
)]
pub(crate) async fn update(
    cx: Ctx<WriteTasks>,
    id: Id<TaskId>,
    when: IfMatch,
    body: Body<ChangeTask>,
) -> Answer {
    let task = task::update(&cx, id.0, &when.0, body.0.into()).await?;
    Ok(entity(task.version, &TaskView::from(task)))
}

/// Delete a task
///
/// Minimum role: member.
#[utoipa::path(
    delete, path = "/api/v1/tasks/{id}", operation_id = "delete_task", tag = "Tasks",
    params(("id" = Uuid, Path), IfMatch),
    responses((status = 204, description = "The task is deleted.")),
    security(("bearer" = []), ("api_key" = [])),
    extensions(("x-errors" = json!(["tenant_suspended"]))),
)]
pub(crate) async fn delete(cx: Ctx<WriteTasks>, id: Id<TaskId>, when: IfMatch) -> Answer {
    task::delete(&cx, id.0, &when.0).await?;
    Ok(no_content())
}

impl From<Task> for TaskView {
    fn from(task: Task) -> Self {
        Self {
            id: task.id,
            project_id: task.project_id,
            title: task.title,
            description: task.description,
            status: task.status,
            priority: task.priority,
            assignee_id: task.assignee_id,
            due_at: task.due_at,
            created_at: task.created_at,
            updated_at: task.updated_at,
            version: task.version,
        }
    }
}

impl From<NewTaskBody> for NewTask {
    fn from(body: NewTaskBody) -> Self {
        Self {
            title: body.title,
            description: body.description,
            status: body.status.unwrap_or_default(),
            priority: body.priority.unwrap_or_default(),
            assignee_id: body.assignee_id,
            due_at: body.due_at.map(Time::from),
        }
    }
}

impl From<ChangeTask> for TaskPatch {
    fn from(body: ChangeTask) -> Self {
        Self {
            project_id: body.project_id,
            title: body.title,
            description: body.description,
            status: body.status,
            priority: body.priority,
            assignee_id: body.assignee_id,
            due_at: body.due_at.map(Time::from),
        }
    }
}

impl From<&TaskParams> for TaskFilter {
    fn from(params: &TaskParams) -> Self {
        Self {
            project_id: params.project_id,
            status: params.status,
            assignee_id: params.assignee_id,
            q: params.q.clone(),
        }
    }
}

impl From<&ProjectTaskParams> for TaskFilter {
    fn from(params: &ProjectTaskParams) -> Self {
        Self {
            project_id: None,
            status: params.status,
            assignee_id: params.assignee_id,
            q: params.q.clone(),
        }
    }
}
