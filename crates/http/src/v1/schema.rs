//! Schemas of the domain's enums, made from the enums so that they cannot fall behind.

use tenantry_domain::{
    Priority, ProjectRole, ProjectStatus, ReservationState, Role, TaskStatus, TenantStatus,
};
use utoipa::openapi::{Object, ObjectBuilder, Type};

pub(crate) fn role() -> Object {
    choice(&Role::ALL.map(Role::as_str))
}

pub(crate) fn tenant_status() -> Object {
    choice(&TenantStatus::ALL.map(TenantStatus::as_str))
}

pub(crate) fn project_status() -> Object {
    choice(&ProjectStatus::ALL.map(ProjectStatus::as_str))
}

pub(crate) fn project_role() -> Object {
    choice(&ProjectRole::ALL.map(ProjectRole::as_str))
}

pub(crate) fn task_status() -> Object {
    choice(&TaskStatus::ALL.map(TaskStatus::as_str))
}

pub(crate) fn priority() -> Object {
    choice(&Priority::ALL.map(Priority::as_str))
}

pub(crate) fn reservation_state() -> Object {
    choice(&ReservationState::ALL.map(ReservationState::as_str))
}

fn choice(values: &[&'static str]) -> Object {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(values.iter().copied()))
        .build()
}
