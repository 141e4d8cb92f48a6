use async_trait::async_trait;
use serde_json::Value;
use uuid::Uuid;

use crate::audit::entry::{AuditFilter, AuditRecord};
use crate::audit::risk::{Outcome, Risk};
use crate::events::NewEvent;
use crate::kernel::{AuditEventId, OperatorId, Page, PageRequest, StoreError, Time};

/// What kind of record it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Category {
    /// Somebody changed something.
    Change,
    /// Something that concerns security: a refused credential, a mismatch of tenants.
    Security,
}

impl Category {
    /// Its name in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Security => "security",
        }
    }
}

/// One entry of the audit log: who did what to what, when and from where.
///
/// Who (actor, request id) is taken from the scope by the adapter, so that it cannot be told wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEvent {
    /// Identifies the entry within the tenant.
    pub id: AuditEventId,
    /// When.
    pub at: Time,
    /// What kind.
    pub category: Category,
    /// What happened, for example `project.created`.
    pub action: &'static str,
    /// The kind of thing it happened to, for example `project`.
    pub target_type: &'static str,
    /// The id of that thing; `None` where it has none.
    pub target_id: Option<Uuid>,
    /// From which address.
    pub ip: Option<String>,
    /// The caller's `User-Agent`, at most 256 characters.
    pub user_agent: Option<String>,
    /// The operator who acts in the tenant; then the scope is the system's.
    pub operator: Option<OperatorId>,
    /// State before, without secrets; of an update what has changed.
    pub before: Option<Value>,
    /// State after, without secrets; of an update what has changed.
    pub after: Option<Value>,
    /// The event that receivers get, where there is a type of events for the action. It is stored with the entry.
    pub event: Option<NewEvent>,
}

impl AuditEvent {
    /// Whether the action was done.
    pub fn outcome(&self) -> Outcome {
        Outcome::of(self.action)
    }

    /// How much the entry deserves attention.
    pub fn risk(&self) -> Risk {
        Risk::of(self.action, self.after.as_ref())
    }
}

/// The audit log of the scope's tenant; append-only.
#[async_trait]
pub trait AuditLog: Send {
    /// Appends an entry in the running transaction, and its event to the outbox.
    async fn record(&mut self, event: AuditEvent) -> Result<(), StoreError>;

    /// A page of entries, newest first. The limit may exceed that of other lists, for exports.
    async fn list(
        &mut self,
        filter: &AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditRecord>, StoreError>;
}

/// The most characters of a text in the details of a security event. Callers write some of them: a header, an address.
const LONGEST_DETAIL: usize = 256;

/// The most characters of a text in the state before or after a change.
const LONGEST_STATE: usize = 4_096;

/// The most members of a list or of an object in either.
const MOST_MEMBERS: usize = 256;

/// How many characters what is said of a text that was cut takes at the most. With it a cut text is no longer than one that
/// is whole, so that cutting it again changes nothing.
const NOTE: usize = 48;

/// The details of a security event, with every text cut to 256 characters.
pub fn cut_details(details: Value) -> Value {
    cut(details, LONGEST_DETAIL)
}

/// The state before or after a change, with every text cut to 4,096 characters. What is longer has versions of its own.
pub fn cut_state(state: Value) -> Value {
    cut(state, LONGEST_STATE)
}

/// The members of two states that differ; states of other shapes stay whole.
pub fn changed_fields(before: Value, after: Value) -> (Value, Value) {
    let (mut before, mut after) = match (before, after) {
        (Value::Object(before), Value::Object(after)) => (before, after),
        others => return others,
    };
    before.retain(|name, value| match after.get(name) {
        Some(other) if other == value => {
            after.remove(name);
            false
        }
        _ => true,
    });
    (before.into(), after.into())
}

/// Members whose values are never recorded. Entities leave them out; this is for what an entity of a service forgets.
const SECRETS: [&str; 9] = [
    "api_key",
    "key_hash",
    "password",
    "password_hash",
    "private_key",
    "recovery_codes",
    "secret",
    "secret_hash",
    "totp_secret",
];

/// What a person reads of a value: the audit log only grows, so what one entry takes is bounded. A text or list that was
/// cut says how long it was.
fn cut(value: Value, longest: usize) -> Value {
    match value {
        Value::String(text) => Value::String(cut_text(text, longest)),
        Value::Array(mut members) => {
            let count = members.len();
            if count > MOST_MEMBERS {
                members.truncate(MOST_MEMBERS - 1);
            }
            let mut members: Vec<_> = members.into_iter().map(|member| cut(member, longest)).collect();
            if count > MOST_MEMBERS {
                members.push(Value::String(format!("… ({count} in all)")));
            }
            Value::Array(members)
        }
        Value::Object(members) => {
            let count = members.len();
            let most = if count > MOST_MEMBERS {
                MOST_MEMBERS - 1
            } else {
                MOST_MEMBERS
            };
            let kept = members.into_iter().take(most);
            let mut kept: serde_json::Map<_, _> = kept
                .map(|(name, member)| {
                    let is_secret =
                        SECRETS.contains(&name.as_str()) && !member.is_boolean() && !member.is_null();
                    let member = if is_secret {
                        "[redacted]".into()
                    } else {
                        cut(member, longest)
                    };
                    (cut_text(name, longest), member)
                })
                .collect();
            if count > MOST_MEMBERS {
                kept.insert("…".into(), Value::String(format!("{count} in all")));
            }
            Value::Object(kept)
        }
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => plain,
    }
}

fn cut_text(text: String, longest: usize) -> String {
    let count = text.chars().count();
    if count <= longest {
        return text;
    }
    let kept: String = text.chars().take(longest.saturating_sub(NOTE)).collect();
    format!("{kept}… ({count} characters in all)")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_stored_is_cut_to_what_a_person_reads() {
        let long = "é".repeat(90_000);
        let cut =
            cut_details(json!({"tenant_slug": long, "nested": [{"x": long}], "short": "acme", "number": 7}));
        let expected = format!("{}… (90000 characters in all)", "é".repeat(208));
        assert_eq!(cut["tenant_slug"], expected);
        assert_eq!(cut["nested"][0]["x"], expected);
        assert_eq!((&cut["short"], &cut["number"]), (&json!("acme"), &json!(7)));
        assert_eq!(cut_details(json!("x".repeat(256))), json!("x".repeat(256)));
        assert_eq!(cut_state(json!("x".repeat(4_096))), json!("x".repeat(4_096)));
        assert!(
            cut_state(json!("x".repeat(4_097)))
                .as_str()
                .unwrap()
                .ends_with("(4097 characters in all)")
        );
        let many = cut_details(json!(vec![1; 1_000]));
        let members = many.as_array().unwrap();
        assert_eq!((members.len(), &members[255]), (256, &json!("… (1000 in all)")));
        let secret =
            cut_state(json!({"nested": {"password_hash": "$argon2id$", "secret": null}, "password": true}));
        assert_eq!(
            secret,
            json!({"nested": {"password_hash": "[redacted]", "secret": null}, "password": true})
        );
        // What was cut is not cut again.
        assert_eq!(cut_details(cut.clone()), cut);
        assert_eq!(cut_details(many.clone()), many);
    }

    #[test]
    fn only_changed_fields_are_recorded() {
        let (before, after) = changed_fields(
            json!({"title": "a", "status": "todo", "gone": 1}),
            json!({"title": "b", "status": "todo", "new": 2}),
        );
        assert_eq!(
            (before, after),
            (json!({"title": "a", "gone": 1}), json!({"title": "b", "new": 2}))
        );
        assert_eq!(changed_fields(json!(1), json!(1)), (json!(1), json!(1)));
    }
}
