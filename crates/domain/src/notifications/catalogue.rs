//! The types of notifications. Users' choices refer to the names: add, and rename nothing.

use crate::events::Event;
use crate::kernel::Permission;
use crate::notifications::notice_type::{Audience, MailDefault, NoticeType, NotifyingEvents};

/// Every type. Where admins get a mail of the event anyway, a notification sends no second one.
const PRODUCT: &[NoticeType] = &[
    NoticeType {
        name: "task.assigned",
        about: "A task was assigned to you.",
        events: &["task.created", "task.updated"],
        audience: Audience::Assignee("assignee_id"),
        needs: Permission::ReadTasks,
        parts: &["title", "status"],
        mail: MailDefault::Instant,
    },
    NoticeType {
        name: "project.member_added",
        about: "You were added to a project.",
        events: &["project.member_added"],
        audience: Audience::Member("user_id"),
        needs: Permission::ReadProjects,
        parts: &["role"],
        mail: MailDefault::Digest,
    },
    of_admins(
        "quota.threshold_reached",
        "The use of a meter has reached a threshold.",
        Permission::ReadUsage,
    )
    .with(&["meter", "percent"], MailDefault::SentOtherwise),
    of_admins(
        "billing.payment_failed",
        "A payment has failed.",
        Permission::ReadBilling,
    )
    .with(&["next_at"], MailDefault::SentOtherwise),
    of_admins(
        "billing.payment_recovered",
        "Everything that was open is paid.",
        Permission::ReadBilling,
    )
    .with(&[], MailDefault::SentOtherwise),
    of_admins(
        "billing.subscription_changed",
        "The subscription has changed.",
        Permission::ReadBilling,
    )
    .with(&["status"], MailDefault::Digest),
    of_admins(
        "security.alert",
        "A rule has found suspicious activity.",
        Permission::ReadAlerts,
    )
    .with(&["rule", "severity"], MailDefault::SentOtherwise),
    of_admins(
        "support_access.requested",
        "An operator asks for access to the tenant.",
        Permission::ReadSupportAccess,
    )
    .with(&["operator_name", "access"], MailDefault::SentOtherwise),
    of_admins(
        "support_access.approved",
        "The access of an operator to the tenant was approved.",
        Permission::ReadSupportAccess,
    )
    .with(&["operator_name", "access"], MailDefault::Off),
    of_admins(
        "support_access.ended",
        "The access of an operator to the tenant has ended.",
        Permission::ReadSupportAccess,
    )
    .with(&["operator_name", "access"], MailDefault::Off),
    of_admins(
        "api_key.expires_soon",
        "An API key expires soon.",
        Permission::ReadApiKeys,
    )
    .with(&["name", "expires_at"], MailDefault::SentOtherwise),
    of_admins(
        "api_key.expired",
        "An API key has expired.",
        Permission::ReadApiKeys,
    )
    .with(&["name"], MailDefault::SentOtherwise),
    of_admins(
        "domain.activated",
        "The tenant is reached by a custom domain.",
        Permission::ReadDomains,
    )
    .with(&["domain"], MailDefault::Digest),
    of_admins(
        "domain.failing",
        "The proof of a custom domain is gone.",
        Permission::ReadDomains,
    )
    .with(&["domain"], MailDefault::SentOtherwise),
    of_admins(
        "domain.released",
        "A custom domain was released.",
        Permission::ReadDomains,
    )
    .with(&["domain"], MailDefault::SentOtherwise),
    of_admins(
        "webhook_endpoint.disabled",
        "An endpoint of webhooks was disabled.",
        Permission::ReadEvents,
    )
    .with(&["url"], MailDefault::SentOtherwise),
];

/// A type for all admins, with the name of its event.
const fn of_admins(name: &'static str, about: &'static str, needs: Permission) -> NoticeType {
    NoticeType {
        name,
        about,
        events: &[],
        audience: Audience::Admins,
        needs,
        parts: &[],
        mail: MailDefault::SentOtherwise,
    }
}

impl NoticeType {
    /// Every type.
    pub const fn all() -> &'static [Self] {
        PRODUCT
    }

    /// The type of that name.
    pub fn find(name: &str) -> Option<&'static Self> {
        PRODUCT.iter().find(|one| one.name == name)
    }

    /// Which events notify, for a search in the feed. Each event of which [`NoticeType::of_event`] finds a type is among them.
    pub fn notifying() -> Vec<NotifyingEvents> {
        let of = |notice: &'static Self| {
            let field = notice.audience.field();
            let is_assigned = matches!(notice.audience, Audience::Assignee(_));
            let event = move |kind: &'static str| NotifyingEvents {
                kind,
                field,
                is_change: is_assigned && kind.ends_with(".updated"),
            };
            notice.event_types().into_iter().map(event)
        };
        PRODUCT.iter().flat_map(of).collect()
    }

    /// All types of events that notify somebody.
    pub fn all_event_types() -> Vec<&'static str> {
        PRODUCT.iter().flat_map(Self::event_types).collect()
    }

    /// The type of the notifications of an event; `None` of one that notifies nobody. A change of a task notifies when it has changed
    /// the assignee.
    pub fn of_event(event: &Event) -> Option<&'static Self> {
        let found = PRODUCT
            .iter()
            .find(|one| one.event_types().contains(&event.kind.as_str()))?;
        match found.audience {
            Audience::Admins => Some(found),
            Audience::Member(_) => found.user(event).map(|_| found),
            Audience::Assignee(field) => {
                let is_change = event.kind.ends_with(".updated");
                let has_changed = event.data["previous_attributes"].get(field).is_some();
                (found.user(event).is_some() && (has_changed || !is_change)).then_some(found)
            }
        }
    }

    const fn with(self, parts: &'static [&'static str], mail: MailDefault) -> Self {
        Self { parts, mail, ..self }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::events::{EventTypes, Field};

    #[test]
    fn types_refer_to_events_and_their_fields() {
        let (events, mut names, mut notifying) = (EventTypes::default(), BTreeSet::new(), BTreeSet::new());
        for notice in PRODUCT {
            assert!(names.insert(notice.name), "{}", notice.name);
            assert!(notice.about.ends_with('.'), "{}", notice.name);
            for event in notice.event_types() {
                assert!(notifying.insert(event), "{event} notifies twice");
                let found = events.find(event).unwrap();
                let fields: BTreeSet<_> = found.object().iter().map(Field::name).collect();
                let used = notice.parts.iter().copied().chain(notice.audience.field());
                for field in used {
                    assert!(fields.contains(field), "{event} has no {field}");
                }
            }
        }
    }

    #[test]
    fn only_a_change_of_the_assignee_notifies() {
        let all = NoticeType::notifying();
        assert_eq!(all.len(), NoticeType::all_event_types().len());
        let of = |kind: &str| all.iter().find(|one| one.kind == kind).copied().unwrap();
        let task = |kind| NotifyingEvents {
            kind,
            field: Some("assignee_id"),
            is_change: kind == "task.updated",
        };
        assert_eq!(of("task.created"), task("task.created"));
        assert_eq!(of("task.updated"), task("task.updated"));
        assert_eq!(of("security.alert").field, None);
    }

    /// A part is stored with the notification, which an erasure of another person does not reach.
    #[test]
    fn no_part_names_a_user() {
        for notice in PRODUCT {
            for part in notice.parts {
                let of_operator = *part == "operator_name";
                let names_user = ["email", "user", "full_name", "owner", "by"];
                assert!(
                    of_operator || !names_user.iter().any(|word| part.contains(word)),
                    "{part}"
                );
            }
        }
    }
}
