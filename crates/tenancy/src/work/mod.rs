//! What tenants work on: projects, tasks, resources, and how often resources are seen.

pub mod project;
pub mod reference;
pub mod resource;
mod storage;
pub mod task;
pub(crate) mod views;
