use serde_json::{Map, Value, json};

use crate::events::field::Field;

/// A type of events: what receivers subscribe to, and what an event of it has.
///
/// An event is emitted by the entry of the audit log that records its change: [`EventType::actions`] says of which actions. So a use
/// case names its event with the action of its entry, and both are stored in the transaction of the change.
///
/// ```
/// use tenantry_domain::events::{EventType, Field};
///
/// const NOTE: &[Field] = &[Field::id("id"), Field::text("text", "Call Ada")];
/// const CREATED: EventType = EventType::new("note.created", "A note was created.", NOTE).since("1.2.0");
/// assert_eq!(CREATED.actions(), ["note.created"]);
/// assert_eq!(CREATED.example()["object"]["text"], "Call Ada");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventType {
    name: &'static str,
    about: &'static str,
    since: &'static str,
    actions: &'static [&'static str],
    object: &'static [Field],
}

impl EventType {
    /// A type that is emitted by the action of the same name. `about` is a sentence for people; `object` has the fields of what the
    /// event is about.
    pub const fn new(name: &'static str, about: &'static str, object: &'static [Field]) -> Self {
        Self {
            name,
            about,
            since: "0.1.0",
            actions: &[],
            object,
        }
    }

    /// The same type with the version of the service in which it came.
    #[must_use]
    pub const fn since(self, version: &'static str) -> Self {
        Self {
            since: version,
            ..self
        }
    }

    /// The same type, emitted by these actions of the audit log in place of the one of its own name.
    #[must_use]
    pub const fn emitted_by(self, actions: &'static [&'static str]) -> Self {
        Self { actions, ..self }
    }

    /// Its name, for example `task.updated`.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// A sentence about it.
    pub const fn about(&self) -> &'static str {
        self.about
    }

    /// The version in which it came.
    pub const fn added_in(&self) -> &'static str {
        self.since
    }

    /// The actions of the audit log that emit it.
    pub fn actions(&self) -> Vec<&'static str> {
        match self.actions {
            [] => vec![self.name],
            actions => actions.to_vec(),
        }
    }

    /// The fields of what its events are about.
    pub const fn object(&self) -> &'static [Field] {
        self.object
    }

    /// The JSON Schema (2020-12) of the `data` of its events. Only the id is required: an erased event has nothing else.
    pub fn schema(&self) -> Value {
        let properties: Map<_, _> = self
            .object
            .iter()
            .map(|field| (field.name().to_owned(), field.schema()))
            .collect();
        let has_id = self.object.iter().any(|field| field.name() == "id");
        let required: &[&str] = if has_id { &["id"] } else { &[] };
        json!({
            "type": "object",
            "required": ["object"],
            "properties": {
                "object": {"type": "object", "properties": properties, "required": required},
                "previous_attributes": {
                    "type": "object",
                    "description": "Of a change: the former values of the fields that it has changed.",
                },
                "erased": {
                    "type": "boolean",
                    "description": "Whether personal data was erased from the event, so that `object` has at most its id.",
                },
            },
        })
    }

    /// An example of the `data` of its events.
    pub fn example(&self) -> Value {
        let object: Map<_, _> = self
            .object
            .iter()
            .map(|field| (field.name().to_owned(), field.example()))
            .collect();
        json!({ "object": object })
    }
}
