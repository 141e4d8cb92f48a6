use crate::kernel::{Check, Invalid};

/// The type of an event, such as `project.created`: words of letters, digits and underscores with dots between them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(String);

impl EventType {
    /// The most characters of a type.
    pub const LONGEST: usize = 128;

    /// Reads a type; `None` when the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        is_type(text).then(|| Self(text.to_owned()))
    }

    /// The type as it is on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_type(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty()
            && word
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    text.len() <= EventType::LONGEST && text.split('.').all(is_word)
}

/// One entry of a filter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventPattern {
    /// One type: `project.created`.
    Type(EventType),
    /// All types below one: `project.*` has `project.created` and `project.member.added`, and neither `project` nor `projects.created`.
    Below(EventType),
}

impl EventPattern {
    /// Reads an entry; `None` when the text is neither a type nor one with `.*` behind it.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_suffix(".*") {
            Some(group) => EventType::parse(group).map(Self::Below),
            None => EventType::parse(text).map(Self::Type),
        }
    }

    /// Whether an event of this type is meant.
    pub fn matches(&self, of: &EventType) -> bool {
        match self {
            Self::Type(one) => one == of,
            Self::Below(group) => {
                let rest = of.0.strip_prefix(group.as_str());
                rest.is_some_and(|rest| rest.starts_with('.'))
            }
        }
    }
}

impl std::fmt::Display for EventPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Type(one) => f.write_str(one.as_str()),
            Self::Below(group) => write!(f, "{}.*", group.as_str()),
        }
    }
}

/// Which events an endpoint gets. An empty filter lets every event through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventFilter(Vec<EventPattern>);

impl EventFilter {
    /// The most entries of a filter.
    pub const MOST: usize = 100;

    /// Reads the entries, sorted and each once.
    ///
    /// # Errors
    /// [`Invalid`] with each entry that is none, at `{pointer}/{index}`, or the number of entries at `pointer`.
    pub fn parse(pointer: &str, texts: &[String]) -> Result<Self, Invalid> {
        let mut check = Check::new();
        if texts.len() > Self::MOST {
            let detail = format!("must have at most {} entries, has {}", Self::MOST, texts.len());
            check.fail(pointer, "too_many", detail);
            return check.verdict().map(|()| Self::default());
        }
        let mut patterns = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            match EventPattern::parse(text) {
                Some(pattern) => patterns.push(pattern),
                None => check.fail(
                    &format!("{pointer}/{index}"),
                    "invalid_event_type",
                    "must be an event type such as `project.created`, or a group such as `project.*`",
                ),
            }
        }
        check.verdict()?;
        patterns.sort_unstable();
        patterns.dedup();
        Ok(Self(patterns))
    }

    /// Whether an event of this type passes.
    pub fn matches(&self, of: &EventType) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.matches(of))
    }

    /// The entries as texts, as they are stored and shown.
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(text: &str) -> EventType {
        EventType::parse(text).unwrap()
    }

    fn filter(texts: &[&str]) -> EventFilter {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        EventFilter::parse("/event_types", &texts).unwrap()
    }

    #[test]
    fn types_are_words_with_dots_between() {
        for text in ["a", "project.created", "a.b.c", "Quota_2.x"] {
            assert!(EventType::parse(text).is_some(), "{text}");
        }
        let long = "a".repeat(EventType::LONGEST + 1);
        for text in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "a b",
            "a-b",
            "a.*",
            "*",
            "é",
            "a\n",
            long.as_str(),
        ] {
            assert!(EventType::parse(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn group_has_what_is_below_it() {
        let filter = filter(&["project.*", "user.invited"]);
        for text in ["project.created", "project.member.added", "user.invited"] {
            assert!(filter.matches(&event(text)), "{text}");
        }
        for text in [
            "project",
            "projects.created",
            "user.invited.again",
            "user",
            "x.project.created",
        ] {
            assert!(!filter.matches(&event(text)), "{text}");
        }
        assert!(EventFilter::default().matches(&event("anything.at.all")));
    }

    #[test]
    fn wrong_entries_are_named() {
        let texts = ["a.b", "*", "a.*", "a.*.c", ""].map(String::from);
        let Invalid(errors) = EventFilter::parse("/event_types", &texts).unwrap_err();
        let pointers: Vec<_> = errors.iter().map(|error| error.pointer.as_str()).collect();
        assert_eq!(pointers, ["/event_types/1", "/event_types/3", "/event_types/4"]);
        let many = vec!["a".to_owned(); EventFilter::MOST + 1];
        let Invalid(errors) = EventFilter::parse("/event_types", &many).unwrap_err();
        assert_eq!((errors.len(), errors[0].code), (1, "too_many"));
        assert_eq!(filter(&["b", "a", "b", "a.*"]).texts(), ["a", "b", "a.*"]);
    }

    proptest! {
        #[test]
        fn filter_passes_exactly_what_one_entry_means(
            entries in proptest::collection::vec("[ab](\\.[ab]){0,2}(\\.\\*)?", 1..5), of in "[ab](\\.[ab]){0,3}",
        ) {
            let filter = EventFilter::parse("", &entries).unwrap();
            let meant = entries.iter().any(|entry| match entry.strip_suffix('*') {
                Some(prefix) => of.starts_with(prefix),
                None => *entry == of,
            });
            prop_assert_eq!(filter.matches(&event(&of)), meant);
            prop_assert_eq!(EventFilter::parse("", &filter.texts()).unwrap(), filter);
        }
    }
}
