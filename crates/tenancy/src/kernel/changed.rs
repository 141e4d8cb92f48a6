use serde::Serialize;
use serde_json::Value;
use tenantry_domain::audit::{changed_fields, cut_state};
use tenantry_domain::identity::{ApiKey, Invitation, User};
use tenantry_domain::tenant::Tenant;
use tenantry_domain::work::{Project, Resource, Task};
use uuid::Uuid;

/// An entity whose changes the audit log records with its states. [`audited!`](crate::audited) implements it.
pub trait Audited: Serialize {
    /// The kind of the entity, for example `task`.
    const KIND: &'static str;
    /// The action of a creation, for example `task.created`.
    const CREATED: &'static str;
    /// The action of a change.
    const UPDATED: &'static str;
    /// The action of a deletion.
    const DELETED: &'static str;

    /// The id of the entity.
    fn target(&self) -> Uuid;
}

/// States that the audit log records changes of an entity with the field `id`: `audited!(Task, "task")`.
#[macro_export]
macro_rules! audited {
    ($entity:ty, $kind:literal) => {
        impl $crate::Audited for $entity {
            const KIND: &'static str = $kind;
            const CREATED: &'static str = concat!($kind, ".created");
            const UPDATED: &'static str = concat!($kind, ".updated");
            const DELETED: &'static str = concat!($kind, ".deleted");

            fn target(&self) -> $crate::__Uuid {
                self.id.into()
            }
        }
    };
}

audited!(ApiKey, "api_key");
audited!(Invitation, "invitation");
audited!(Project, "project");
audited!(Resource, "resource");
audited!(Task, "task");
audited!(Tenant, "tenant");
audited!(User, "user");

/// A change, as [`Cx::record`](crate::Cx::record) writes it into the audit log.
#[derive(Debug, Clone, PartialEq)]
pub struct Changed {
    pub(crate) action: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) target: Uuid,
    pub(crate) before: Option<Value>,
    pub(crate) after: Option<Value>,
    /// The whole state after the change, or the last one: what receivers of events get.
    pub(crate) object: Option<Value>,
}

impl Changed {
    /// The entity was created.
    pub fn created<T: Audited>(after: &T) -> Self {
        Self::with(T::CREATED, None, after)
    }

    /// The entity was updated.
    pub fn updated<T: Audited>(before: &T, after: &T) -> Self {
        Self::with(T::UPDATED, Some(before), after)
    }

    /// The entity was deleted.
    pub fn deleted<T: Audited>(before: &T) -> Self {
        Self::ended(T::DELETED, before)
    }

    /// A change with another action, such as `project.restored`. Of a state before only what has changed is recorded.
    pub fn with<T: Audited>(action: &'static str, before: Option<&T>, after: &T) -> Self {
        let target = after.target();
        let object = state(after);
        let (before, after) = match before {
            Some(before) => {
                let (before, after) = changed_fields(state(before), object.clone());
                (Some(before), after)
            }
            None => (None, object.clone()),
        };
        Self {
            action,
            kind: T::KIND,
            target,
            before,
            after: Some(after),
            object: Some(object),
        }
    }

    /// An end with another action, such as `api_key.revoked`.
    pub fn ended<T: Audited>(action: &'static str, before: &T) -> Self {
        let object = state(before);
        Self {
            action,
            kind: T::KIND,
            target: before.target(),
            before: Some(object.clone()),
            after: None,
            object: Some(object),
        }
    }

    /// A change whose states are not recorded. The kind of the target is the action's first word: `note` of `note.created`.
    pub fn new(action: &'static str, target: Uuid) -> Self {
        let kind = action.split_once('.').map_or(action, |(kind, _)| kind);
        Self {
            action,
            kind,
            target,
            before: None,
            after: None,
            object: None,
        }
    }
}

fn state(of: &impl Serialize) -> Value {
    cut_state(serde_json::to_value(of).unwrap_or(Value::Null))
}
