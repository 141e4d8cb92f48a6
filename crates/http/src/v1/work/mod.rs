//! Projects with members, tasks, and resources with versions.

pub(crate) mod project;
pub(crate) mod resource;
pub(crate) mod task;
