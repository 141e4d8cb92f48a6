//! What tenants work on: projects with members, tasks, and resources with versions.
//!
//! May use: `kernel`, `identity`.

mod project;
mod resource;
mod task;

pub use project::{
    Member, MemberDetails, Members, NewProject, Project, ProjectFilter, ProjectPatch, ProjectRole,
    ProjectStatus, Projects,
};
pub use resource::{NewResource, Resource, ResourceFilter, ResourcePatch, ResourceVersion, Resources};
pub use task::{NewTask, Priority, Task, TaskFilter, TaskPatch, TaskStatus, Tasks};
