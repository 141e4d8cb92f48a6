use serde::Serialize;
use serde_json::{Map, Value};

use crate::events::Event;
use crate::identity::{CustomRole, Narrowing, User};
use crate::kernel::{Line, Permission, UserId};

/// A type of notifications: which events notify whom, and of what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NoticeType {
    /// Its name, for example `task.assigned`.
    pub name: &'static str,
    /// A sentence about it, to its recipient.
    pub about: &'static str,
    /// The types of events that notify; the one of its own name when there are none.
    pub(super) events: &'static [&'static str],
    /// Who is notified.
    pub audience: Audience,
    /// The permission without which a user may not read what the notification tells.
    pub needs: Permission,
    /// The fields of the event's object that a notification shows.
    pub parts: &'static [&'static str],
    /// What is mailed when the user has chosen nothing.
    pub mail: MailDefault,
}

/// Events of a type that notify.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct NotifyingEvents {
    /// The type of the events.
    pub kind: &'static str,
    /// The field of the object that names the user; an event without it notifies nobody.
    pub field: Option<&'static str>,
    /// Whether the event notifies only where it has changed that field.
    pub is_change: bool,
}

/// Who is notified of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Each acting admin.
    Admins,
    /// The user to whom the event has assigned a task, in this field of the object.
    Assignee(&'static str),
    /// The user who has become a member of a project, in this field of the object.
    Member(&'static str),
}

/// What is mailed of a type when the user has chosen nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailDefault {
    /// Nothing.
    Off,
    /// A mail for each notification.
    Instant,
    /// A digest, as often as the setting `notifications.email_digest` of the tenant says.
    Digest,
    /// The event is mailed to admins in any case, so a notification sends no mail, and no user can choose one.
    SentOtherwise,
}

impl Audience {
    /// The field of the object that names the user.
    pub const fn field(self) -> Option<&'static str> {
        match self {
            Self::Admins => None,
            Self::Assignee(field) | Self::Member(field) => Some(field),
        }
    }
}

impl NoticeType {
    /// The longest part of a notification, in characters.
    const LONGEST_PART: usize = Line::LONGEST;

    /// The types of events that notify.
    pub fn event_types(&self) -> Vec<&'static str> {
        match self.events {
            [] => vec![self.name],
            events => events.to_vec(),
        }
    }

    /// The user whom the event names, unless the audience is no single user.
    pub fn user(&self, event: &Event) -> Option<UserId> {
        let field = self.audience.field()?;
        event.data["object"][field].as_str()?.parse().ok()
    }

    /// What a notification of the event shows, by name: texts and numbers, each on one line.
    pub fn parts_of(&self, event: &Event) -> Map<String, Value> {
        let object = &event.data["object"];
        let shown = self.parts.iter().filter_map(|part| {
            let value = match object.get(*part)? {
                Value::String(text) => Value::from(Line::within(text, Self::LONGEST_PART).as_str()),
                Value::Number(number) => Value::Number(number.clone()),
                Value::Bool(flag) => Value::Bool(*flag),
                Value::Null | Value::Array(_) | Value::Object(_) => return None,
            };
            Some(((*part).to_owned(), value))
        });
        shown.collect()
    }
}

/// Whether an active user has a permission now, by role and custom role.
pub fn may_read(user: &User, custom_role: Option<&CustomRole>, needs: Permission) -> bool {
    let by_role = needs.least_role().is_some_and(|least| user.role >= least);
    let is_left = match (&user.custom_role, custom_role) {
        (None, _) => true,
        // A role that cannot be found leaves nothing.
        (Some(_), None) => false,
        (Some(_), Some(role)) => {
            let narrowing = Narrowing {
                base_role: role.base_role,
                permissions: role.permissions.clone(),
            };
            narrowing.leaves(needs)
        }
    };
    user.is_active && by_role && is_left
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn event(kind: &str, data: Value) -> Event {
        Event {
            id: Uuid::from_u128(1).into(),
            position: 1,
            kind: kind.into(),
            at: "2026-01-31T12:00:00Z".parse().unwrap(),
            actor_kind: "user".into(),
            actor_id: None,
            entity: "task".into(),
            entity_id: None,
            trace_parent: None,
            data,
        }
    }

    #[test]
    fn task_notifies_when_its_assignee_has_changed() {
        let user = Uuid::from_u128(7);
        let object = json!({"title": "T", "assignee_id": user});
        let name = |kind: &str, data: Value| NoticeType::of_event(&event(kind, data)).map(|one| one.name);
        let assigned = Some("task.assigned");
        assert_eq!(name("task.created", json!({"object": object})), assigned);
        let changed = json!({"object": object, "previous_attributes": {"assignee_id": null}});
        assert_eq!(name("task.updated", changed), assigned);
        let renamed = json!({"object": object, "previous_attributes": {"title": "S"}});
        assert_eq!(name("task.updated", renamed), None);
        let unassigned =
            json!({"object": {"assignee_id": null}, "previous_attributes": {"assignee_id": user}});
        assert_eq!(name("task.updated", unassigned), None);
        assert_eq!(name("task.created", json!({"object": {"title": "T"}})), None);
        assert_eq!(name("task.deleted", json!({"object": object})), None);
        // What an erasure or the size limit has left of an event names nobody.
        assert_eq!(name("task.created", json!({"object": {}, "erased": true})), None);
    }

    #[test]
    fn parts_are_short_lines() {
        let notice = NoticeType::find("quota.threshold_reached").unwrap();
        let long = format!("a\r\nb{}", "x".repeat(500));
        let data = json!({"object": {"meter": long, "percent": 80, "used": 7, "of": {"x": 1}}});
        let parts = notice.parts_of(&event("quota.threshold_reached", data));
        assert_eq!(parts.len(), 2);
        assert_eq!(parts["percent"], 80);
        let meter = parts["meter"].as_str().unwrap();
        assert!(
            meter.starts_with("a b") && meter.chars().count() <= Line::LONGEST,
            "{meter}"
        );
    }
}
