use serde_json::{Value, json};

use crate::kernel::{Line, MailTemplate, Message, Recipient, wall_clock};
use crate::notifications::notification::Notification;

/// Notifications in a mail: one at once, or those of a digest.
#[derive(Debug, Clone, Copy)]
pub struct NotificationMail<'a> {
    /// The notifications, newest first.
    pub items: &'a [Notification],
    /// How many there are beyond them.
    pub more: u32,
    /// Whether it is a digest.
    pub is_digest: bool,
    /// The link that ends such mails.
    pub unsubscribe: &'a str,
}

impl NotificationMail<'_> {
    /// The most notifications that a digest lists.
    pub const MOST_LISTED: usize = 20;

    /// The mail as values.
    pub fn message(&self, recipient: &Recipient) -> Message {
        let items: Vec<Value> = self.items.iter().map(|item| values(item, recipient)).collect();
        Message::new(MailTemplate::Notifications)
            .with("count", self.items.len())
            .with("items", items)
            .with("more", self.more)
            .with("digest", self.is_digest)
            .with("unsubscribe", self.unsubscribe)
    }
}

/// A status that the notification does not have is empty, and a name is `…`, so that no sentence ends before it.
fn values(item: &Notification, recipient: &Recipient) -> Value {
    let part = |name: &str| {
        let value = item.parts.get(name).map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        Line::within(&value.unwrap_or_default(), Line::SHORT)
    };
    let name = |name: &str| Some(part(name)).filter(|line| !line.as_str().is_empty());
    let named = |part: &str| name(part).unwrap_or_else(|| Line::of("…"));
    json!({
        "kind": item.kind,
        "title": named("title"),
        "status": part("status"),
        "domain": named("domain"),
        "operator": named("operator_name"),
        "at": wall_clock(item.occurred_at, &recipient.zone),
    })
}
