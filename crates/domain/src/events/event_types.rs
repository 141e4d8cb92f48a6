use std::collections::HashMap;

use crate::events::catalogue::PRODUCT;
use crate::events::event_type::EventType;
use crate::kernel::Invalid;

/// The most types that a reader can ask for at once.
pub const MOST_TYPES: usize = 50;

/// The longest name of a type, in characters.
const LONGEST_NAME: usize = 64;

/// The types of events: the product's, and those of the service that embeds it.
#[derive(Debug, Clone)]
pub struct EventTypes {
    all: Vec<EventType>,
    by_action: HashMap<&'static str, usize>,
}

/// Why types cannot be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventTypeError {
    /// A name is not of that form.
    #[error(
        "event type `{0}`: a name is two or more words of a-z, 0-9 and _, joined by dots, and at most 64 characters"
    )]
    Malformed(&'static str),
    /// There is a type of this name already.
    #[error("event type `{0}` is registered already")]
    Taken(&'static str),
    /// Another type is emitted by the action.
    #[error("event type `{0}`: the action `{1}` emits another type")]
    ActionTaken(&'static str, &'static str),
}

/// The product's types.
impl Default for EventTypes {
    fn default() -> Self {
        let mut types = Self {
            all: Vec::new(),
            by_action: HashMap::new(),
        };
        PRODUCT.iter().for_each(|one| types.push(*one));
        types
    }
}

impl EventTypes {
    /// The product's types and those of a service.
    ///
    /// # Errors
    /// [`EventTypeError`].
    pub fn new(own: impl IntoIterator<Item = EventType>) -> Result<Self, EventTypeError> {
        let mut types = Self::default();
        for one in own {
            if !is_name(one.name()) {
                return Err(EventTypeError::Malformed(one.name()));
            }
            if types.find(one.name()).is_some() {
                return Err(EventTypeError::Taken(one.name()));
            }
            let mut actions = one.actions().into_iter();
            if let Some(action) = actions.find(|action| types.by_action.contains_key(action)) {
                return Err(EventTypeError::ActionTaken(one.name(), action));
            }
            types.push(one);
        }
        Ok(types)
    }

    /// Every type: the product's first, then the service's, each in the order of its declaration.
    pub fn all(&self) -> &[EventType] {
        &self.all
    }

    /// The type of that name.
    pub fn find(&self, name: &str) -> Option<&EventType> {
        self.all.iter().find(|one| one.name() == name)
    }

    /// The type that an action of the audit log emits.
    pub fn of_action(&self, action: &str) -> Option<&EventType> {
        self.all.get(*self.by_action.get(action)?)
    }

    /// The types in a list of names, which are separated by commas; all when there is no list.
    ///
    /// # Errors
    /// `/query/types` for an unknown name, and for more than [`MOST_TYPES`].
    pub fn named(&self, list: Option<&str>) -> Result<Vec<&'static str>, Invalid> {
        let Some(list) = list else {
            return Ok(Vec::new());
        };
        let refuse = |code, detail| Err(Invalid::one("/query/types", code, detail));
        let names: Vec<&str> = list.split(',').collect();
        if names.len() > MOST_TYPES {
            return refuse("too_many", format!("must have at most {MOST_TYPES} types"));
        }
        let mut found = Vec::with_capacity(names.len());
        for name in names {
            match self.find(name) {
                Some(one) => found.push(one.name()),
                None => {
                    let detail = "must be names in GET /api/v1/webhooks/event-types, separated by commas";
                    return refuse("unknown_event_type", detail.to_owned());
                }
            }
        }
        Ok(found)
    }

    fn push(&mut self, one: EventType) {
        let index = self.all.len();
        let actions = one.actions().into_iter();
        self.by_action.extend(actions.map(|action| (action, index)));
        self.all.push(one);
    }
}

fn is_name(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    };
    text.len() <= LONGEST_NAME && text.contains('.') && text.split('.').all(is_word)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::events::field::Field;

    const NOTE: &[Field] = &[Field::id("id"), Field::text("text", "Call Ada")];

    #[test]
    fn product_types_are_well_formed_and_emitted_by_one_action_each() {
        let (mut names, mut actions) = (BTreeSet::new(), BTreeSet::new());
        for one in PRODUCT {
            assert!(is_name(one.name()), "{}", one.name());
            assert!(names.insert(one.name()), "{}", one.name());
            for action in one.actions() {
                assert!(actions.insert(action), "{action}");
            }
            assert!(
                one.about().ends_with('.') && !one.object().is_empty(),
                "{}",
                one.name()
            );
            let fields: BTreeSet<_> = one.object().iter().map(Field::name).collect();
            assert_eq!(fields.len(), one.object().len(), "{}", one.name());
        }
    }

    #[test]
    fn service_adds_its_types_and_takes_none() {
        let created = EventType::new("note.created", "A note was created.", NOTE);
        let types = EventTypes::new([created]).unwrap();
        assert_eq!(types.find("note.created"), Some(&created));
        assert_eq!(types.of_action("note.created"), Some(&created));
        assert_eq!(types.all().len(), PRODUCT.len() + 1);
        for malformed in ["note", "Note.created", "note.", ".note", "note created.x", ""] {
            let error = EventTypes::new([EventType::new(malformed, "It.", NOTE)]).unwrap_err();
            assert_eq!(error, EventTypeError::Malformed(malformed));
        }
        let taken = EventTypes::new([EventType::new("task.created", "It.", NOTE)]).unwrap_err();
        assert_eq!(taken, EventTypeError::Taken("task.created"));
        let twice = EventTypes::new([created, created]).unwrap_err();
        assert_eq!(twice, EventTypeError::Taken("note.created"));
        let other = EventType::new("note.moved", "It.", NOTE).emitted_by(&["task.updated"]);
        let error = EventTypes::new([other]).unwrap_err();
        assert_eq!(error, EventTypeError::ActionTaken("note.moved", "task.updated"));
    }

    #[test]
    fn unknown_types_are_refused() {
        let types = EventTypes::default();
        assert!(types.named(None).unwrap().is_empty());
        let both = types.named(Some("task.created,user.invited")).unwrap();
        assert_eq!(both, ["task.created", "user.invited"]);
        for wrong in ["", "task", "task.created,", "task.created, user.invited"] {
            let Invalid(errors) = types.named(Some(wrong)).unwrap_err();
            assert_eq!(errors[0].code, "unknown_event_type", "{wrong}");
        }
        let many = vec!["task.created"; MOST_TYPES + 1].join(",");
        let Invalid(errors) = types.named(Some(&many)).unwrap_err();
        assert_eq!(
            (errors[0].pointer.as_str(), errors[0].code),
            ("/query/types", "too_many")
        );
    }
}
