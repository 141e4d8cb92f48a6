//! Tasks.

use tenantry_domain::kernel::{
    Check, Invalid, Page, PageRequest, Patch, Permission, ProjectId, TaskId, UserId,
};
use tenantry_domain::store::Work;
use tenantry_domain::work::{NewTask, Task, TaskFilter, TaskPatch};

use crate::work::reference::{ReferenceReason, unknown_assignee, unknown_project};
use crate::{Changed, Cx, Precondition, UseCaseError};

/// Errors of the task use cases.
pub type TaskError = UseCaseError<ReferenceReason>;

/// A page of the tenant's tasks.
///
/// # Errors
/// [`TaskError`].
pub async fn list(cx: &Cx, filter: &TaskFilter, page: PageRequest) -> Result<Page<Task>, TaskError> {
    cx.require(Permission::ReadTasks)?;
    check_filter(filter)?;
    cx.read(async |work| Ok(work.tasks().list(filter, page).await?))
        .await
}

/// A page of the tasks of one project, which must be there.
///
/// # Errors
/// [`TaskError`].
pub async fn list_of_project(
    cx: &Cx,
    project: ProjectId,
    filter: &TaskFilter,
    page: PageRequest,
) -> Result<Page<Task>, TaskError> {
    cx.require(Permission::ReadTasks)?;
    check_filter(filter)?;
    let filter = TaskFilter {
        project_id: Some(project),
        ..filter.clone()
    };
    cx.read(async |work| {
        work.projects().find(project).await?.ok_or(TaskError::NotFound)?;
        Ok(work.tasks().list(&filter, page).await?)
    })
    .await
}

/// One task.
///
/// # Errors
/// [`TaskError`].
pub async fn get(cx: &Cx, id: TaskId) -> Result<Task, TaskError> {
    cx.require(Permission::ReadTasks)?;
    cx.read(async |work| work.tasks().find(id).await?.ok_or(TaskError::NotFound))
        .await
}

/// Makes a task in a project.
///
/// # Errors
/// [`TaskError`].
pub async fn create(cx: &Cx, project: ProjectId, data: NewTask) -> Result<Task, TaskError> {
    cx.require(Permission::WriteTasks)?;
    let task = Task::new(TaskId::next(cx.ids()), project, data, cx.now())?;
    cx.write(async |work| {
        work.projects()
            .find_for_share(project)
            .await?
            .ok_or(TaskError::NotFound)?;
        check_assignee(work, task.assignee_id).await?;
        work.tasks().insert(&task).await?;
        cx.record(work, Changed::created(&task)).await?;
        Ok(task)
    })
    .await
}

/// Changes a task.
///
/// # Errors
/// [`TaskError`].
pub async fn update(cx: &Cx, id: TaskId, when: &Precondition, patch: TaskPatch) -> Result<Task, TaskError> {
    cx.require(Permission::WriteTasks)?;
    cx.write(async |work| {
        let before = work
            .tasks()
            .find_for_update(id)
            .await?
            .ok_or(TaskError::NotFound)?;
        when.check(before.version)?;
        let mut task = before.clone();
        task.apply(patch.clone(), cx.now())?;
        if let Patch::Set(project) = patch.project_id {
            work.projects()
                .find_for_share(project)
                .await?
                .ok_or_else(unknown_project)?;
        }
        if let Patch::Set(assignee) = patch.assignee_id {
            check_assignee(work, Some(assignee)).await?;
        }
        work.tasks().update(&task).await?;
        cx.record(work, Changed::updated(&before, &task)).await?;
        Ok(task)
    })
    .await
}

/// Deletes a task.
///
/// # Errors
/// [`TaskError`].
pub async fn delete(cx: &Cx, id: TaskId, when: &Precondition) -> Result<(), TaskError> {
    cx.require(Permission::WriteTasks)?;
    cx.write(async |work| {
        let before = work
            .tasks()
            .find_for_update(id)
            .await?
            .ok_or(TaskError::NotFound)?;
        when.check(before.version)?;
        let mut task = before.clone();
        task.delete(cx.now());
        work.tasks().update(&task).await?;
        Ok(cx.record(work, Changed::deleted(&before)).await?)
    })
    .await
}

fn check_filter(filter: &TaskFilter) -> Result<(), Invalid> {
    let Some(q) = &filter.q else { return Ok(()) };
    Check::all(|check| check.line("/query/q", q, 1..=200))
}

async fn check_assignee(work: &mut Work, assignee: Option<UserId>) -> Result<(), TaskError> {
    if let Some(id) = assignee {
        work.users().find(id).await?.ok_or_else(unknown_assignee)?;
    }
    Ok(())
}
