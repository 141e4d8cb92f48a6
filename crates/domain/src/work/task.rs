use async_trait::async_trait;
use serde::Serialize;

use crate::kernel::name::named_enum;
use crate::kernel::{
    Check, Invalid, Page, PageRequest, Patch, Position, ProjectId, StoreError, TaskId, Time, UserId,
};

named_enum! {
    /// How far a task is.
    #[derive(Default)]
    pub enum TaskStatus {
        /// Not begun.
        #[default]
        Todo = "todo",
        /// Begun.
        InProgress = "in_progress",
        /// Finished: nothing is left to do.
        Done = "done",
        /// Given up.
        Cancelled = "cancelled",
    }
}

named_enum! {
    /// How much a task matters.
    #[derive(Default)]
    pub enum Priority {
        /// Some day.
        Low = "low",
        /// As usual.
        #[default]
        Normal = "normal",
        /// Soon.
        High = "high",
        /// Now.
        Urgent = "urgent",
    }
}

/// Something to do in a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Task {
    /// Identifies the task within the tenant.
    pub id: TaskId,
    /// The project it is filed under.
    pub project_id: ProjectId,
    /// 1 to 200 characters.
    pub title: String,
    /// Up to 20,000 characters.
    pub description: Option<String>,
    /// How far it is.
    pub status: TaskStatus,
    /// How much it matters.
    pub priority: Priority,
    /// Who is to do it.
    pub assignee_id: Option<UserId>,
    /// Until when.
    pub due_at: Option<Time>,
    /// When it was made.
    pub created_at: Time,
    /// When it was last changed.
    pub updated_at: Time,
    /// When it was deleted, if it was.
    pub deleted_at: Option<Time>,
    /// Counts its changes, from 1.
    pub version: i64,
}

/// The fields of a task that its creator decides.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// See [`Task::title`].
    pub title: String,
    /// See [`Task::description`].
    pub description: Option<String>,
    /// See [`Task::status`].
    pub status: TaskStatus,
    /// See [`Task::priority`].
    pub priority: Priority,
    /// See [`Task::assignee_id`].
    pub assignee_id: Option<UserId>,
    /// See [`Task::due_at`].
    pub due_at: Option<Time>,
}

/// What may be changed of a task.
#[derive(Debug, Clone, Default)]
pub struct TaskPatch {
    /// See [`Task::project_id`]: moves the task.
    pub project_id: Patch<ProjectId>,
    /// See [`Task::title`].
    pub title: Patch<String>,
    /// See [`Task::description`]; may be cleared.
    pub description: Patch<String>,
    /// See [`Task::status`].
    pub status: Patch<TaskStatus>,
    /// See [`Task::priority`].
    pub priority: Patch<Priority>,
    /// See [`Task::assignee_id`]; may be cleared.
    pub assignee_id: Patch<UserId>,
    /// See [`Task::due_at`]; may be cleared.
    pub due_at: Patch<Time>,
}

/// Which tasks a list is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskFilter {
    /// Only of this project.
    pub project_id: Option<ProjectId>,
    /// Only of this status.
    pub status: Option<TaskStatus>,
    /// Only of this assignee.
    pub assignee_id: Option<UserId>,
    /// Only those whose title contains this text, whatever the case.
    pub q: Option<String>,
}

impl Task {
    /// A new task.
    ///
    /// # Errors
    /// Every field that does not hold.
    pub fn new(id: TaskId, project_id: ProjectId, data: NewTask, now: Time) -> Result<Self, Invalid> {
        let task = Self {
            id,
            project_id,
            title: data.title.trim().to_owned(),
            description: data.description,
            status: data.status,
            priority: data.priority,
            assignee_id: data.assignee_id,
            due_at: data.due_at,
            created_at: now,
            updated_at: now,
            deleted_at: None,
            version: 1,
        };
        task.check(Check::new())?;
        Ok(task)
    }

    /// Applies a change, all of it or nothing.
    ///
    /// # Errors
    /// Every field that does not hold.
    pub fn apply(&mut self, patch: TaskPatch, now: Time) -> Result<(), Invalid> {
        let mut check = Check::new();
        let mut next = self.clone();
        check.not_null("/project_id", &patch.project_id);
        check.not_null("/title", &patch.title);
        check.not_null("/status", &patch.status);
        check.not_null("/priority", &patch.priority);
        patch.project_id.apply_required(&mut next.project_id);
        patch
            .title
            .map(|title| title.trim().to_owned())
            .apply_required(&mut next.title);
        patch.description.apply(&mut next.description);
        patch.status.apply_required(&mut next.status);
        patch.priority.apply_required(&mut next.priority);
        patch.assignee_id.apply(&mut next.assignee_id);
        patch.due_at.apply(&mut next.due_at);
        next.check(check)?;
        next.touch(now);
        *self = next;
        Ok(())
    }

    /// Deletes the task.
    pub fn delete(&mut self, now: Time) {
        self.deleted_at = Some(now);
        self.touch(now);
    }

    /// Where the task is in a list.
    pub fn position(&self) -> Position {
        Position {
            created_at: self.created_at,
            id: self.id.uuid(),
        }
    }

    fn check(&self, mut check: Check) -> Result<(), Invalid> {
        check.line("/title", &self.title, 1..=200);
        if let Some(description) = &self.description {
            check.text("/description", description, 0..=20_000);
        }
        if let Some(due_at) = self.due_at {
            let year = chrono::Datelike::year(&due_at);
            check.require(
                (1970..=9999).contains(&year),
                "/due_at",
                "out_of_range",
                "must be in 1970..=9999",
            );
        }
        check.verdict()
    }

    fn touch(&mut self, now: Time) {
        self.updated_at = now;
        self.version += 1;
    }
}

/// Live tasks of the scope's tenant.
#[async_trait]
pub trait Tasks: Send {
    /// A task.
    async fn find(&mut self, id: TaskId) -> Result<Option<Task>, StoreError>;
    /// A task, locked until the transaction ends.
    async fn find_for_update(&mut self, id: TaskId) -> Result<Option<Task>, StoreError>;
    /// A page of tasks.
    async fn list(&mut self, filter: &TaskFilter, page: PageRequest) -> Result<Page<Task>, StoreError>;
    /// Adds a task.
    async fn insert(&mut self, task: &Task) -> Result<(), StoreError>;
    /// Stores a task's new state.
    async fn update(&mut self, task: &Task) -> Result<(), StoreError>;
}
