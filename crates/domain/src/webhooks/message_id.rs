use uuid::Uuid;

/// The id of a message, the same for each of its attempts: the receiver recognizes by it what it has already processed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MessageId(String);

impl MessageId {
    /// The most characters of an id.
    pub const LONGEST: usize = 64;

    /// The id of a message that is stored under this one.
    pub fn of(id: Uuid) -> Self {
        Self(format!("msg_{}", id.simple()))
    }

    /// Reads an id of letters, digits, `_` and `-`; `None` of other texts. A dot is none of them: what is signed has one between its parts,
    /// so that an id with a dot could pass for another id and time.
    pub fn parse(text: &str) -> Option<Self> {
        let is_id = (1..=Self::LONGEST).contains(&text.len())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        is_id.then(|| Self(text.to_owned()))
    }

    /// The id as the header `webhook-id` has it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_hold_nothing_that_separates() {
        let id = MessageId::of(Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0001));
        assert_eq!(id.as_str(), "msg_01980000000070008000000000000001");
        assert_eq!(MessageId::parse(id.as_str()), Some(id));
        assert!(MessageId::parse("msg_p5jXN8AQM9LWM0D4loKWxJek").is_some());
        for text in [
            "",
            "a.b",
            "a b",
            "a\r\nb",
            "é",
            "a".repeat(MessageId::LONGEST + 1).as_str(),
        ] {
            assert!(MessageId::parse(text).is_none(), "{text:?}");
        }
    }
}
