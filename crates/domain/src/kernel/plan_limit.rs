use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// How much of something a plan allows. Written as a whole number or as `"unlimited"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// So much and no more; what it counts is said by the limit's name.
    Of(u64),
    /// As much as one likes.
    Unlimited,
}

impl Limit {
    /// Whether `amount` is still within it.
    pub const fn allows(self, amount: u64) -> bool {
        match self {
            Self::Of(most) => amount <= most,
            Self::Unlimited => true,
        }
    }
}

impl Limit {
    /// Whether more is allowed here than there.
    pub const fn exceeds(self, other: Self) -> bool {
        match (self, other) {
            (Self::Unlimited, Self::Of(_)) => true,
            (Self::Of(more), Self::Of(less)) => more > less,
            (Self::Unlimited | Self::Of(_), Self::Unlimited) => false,
        }
    }
}

impl Serialize for Limit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Of(most) => serializer.serialize_u64(*most),
            Self::Unlimited => serializer.serialize_str(UNLIMITED),
        }
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LimitVisitor)
    }
}

const UNLIMITED: &str = "unlimited";

struct LimitVisitor;

impl Visitor<'_> for LimitVisitor {
    type Value = Limit;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, not negative, or \"unlimited\"")
    }

    fn visit_u64<E: Error>(self, most: u64) -> Result<Limit, E> {
        Ok(Limit::Of(most))
    }

    fn visit_i64<E: Error>(self, most: i64) -> Result<Limit, E> {
        u64::try_from(most)
            .map(Limit::Of)
            .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(most), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Limit, E> {
        if text == UNLIMITED {
            Ok(Limit::Unlimited)
        } else {
            Err(E::invalid_value(serde::de::Unexpected::Str(text), &self))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allows_up_to_and_including_its_number() {
        assert!(Limit::Of(3).allows(3));
        assert!(!Limit::Of(3).allows(4));
        assert!(!Limit::Of(0).allows(1));
        assert!(Limit::Unlimited.allows(u64::MAX));
    }

    #[test]
    fn is_a_number_or_a_word() {
        for (text, limit) in [
            ("0", Limit::Of(0)),
            ("7", Limit::Of(7)),
            ("\"unlimited\"", Limit::Unlimited),
        ] {
            assert_eq!(serde_json::from_str::<Limit>(text).unwrap(), limit);
            assert_eq!(serde_json::to_string(&limit).unwrap(), text);
        }
        for text in ["-1", "1.5", "true", "null", "\"7\"", "\"Unlimited\"", "[]"] {
            assert!(serde_json::from_str::<Limit>(text).is_err(), "{text}");
        }
    }
}
