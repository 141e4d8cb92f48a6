//! The one reading of JSON that clients send: bodies, usage events, OFREP contexts.
//!
//! `serde_json` keeps the last of two members of one name and rounds integers that 64 bits do not hold, both without a
//! word. Here each is an error with its place, as is U+0000, which PostgreSQL cannot store.

use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use tenantry_domain::kernel::{FieldError, pointer_segment};

/// The most errors that are reported of one body.
pub(crate) const MAX_ERRORS: usize = 20;

/// The longest pointer in an error, in bytes. A longer one ends at the last ancestor that fits.
const MAX_POINTER: usize = 1_000;

/// A JSON text as a tree, and what is wrong with it although it is JSON.
#[derive(Debug)]
pub(crate) struct Checked {
    /// The tree. A whole number that is written as a fraction (`7.0`, `7e0`) is an integer.
    pub value: Value,
    /// Duplicate members, U+0000, and integers outside 64 bits; [`MAX_ERRORS`] of them at most.
    pub errors: Vec<FieldError>,
}

/// Why a text was not read.
#[derive(Debug)]
pub(crate) enum Unreadable {
    /// It is not JSON.
    Malformed(serde_json::Error),
    /// It is JSON, and deeper than is read.
    TooDeep,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(error) => write!(f, "is not JSON: {error}"),
            Self::TooDeep => f.write_str("must not be nested more than 127 levels deep"),
        }
    }
}

/// Reads a JSON text in one pass.
///
/// # Errors
/// [`Unreadable`].
pub(crate) fn read(text: &[u8]) -> Result<Checked, Unreadable> {
    read_to_its_depth(text).map_err(|error| {
        // The library has no other name for it. Passing over a value takes no stack.
        let is_deep = error.to_string().starts_with("recursion limit exceeded");
        if is_deep && serde_json::from_slice::<IgnoredAny>(text).is_ok() {
            Unreadable::TooDeep
        } else {
            Unreadable::Malformed(error)
        }
    })
}

fn read_to_its_depth(text: &[u8]) -> Result<Checked, serde_json::Error> {
    let mut reading = Reading {
        errors: Vec::new(),
        numbers: 0,
        wide: wide_integers(text),
    };
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let node = Node {
        reading: &mut reading,
        place: Place::Root,
    };
    let value = node.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Checked {
        value,
        errors: reading.errors,
    })
}

/// Where something stands in a tree. It lives on the stack of whoever walks the tree.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    Root,
    Member(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

/// A step on the way to a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Member(String),
    Item(usize),
}

impl Place<'_> {
    /// The steps from the root.
    pub(crate) fn path(&self) -> Vec<Step> {
        let (mut path, mut place) = (Vec::new(), self);
        loop {
            place = match place {
                Place::Root => break,
                Place::Member(parent, name) => {
                    path.push(Step::Member((*name).to_owned()));
                    parent
                }
                Place::Item(parent, index) => {
                    path.push(Step::Item(*index));
                    parent
                }
            };
        }
        path.reverse();
        path
    }

    /// Whether these steps lead here.
    pub(crate) fn is(&self, path: &[Step]) -> bool {
        match (self, path.split_last()) {
            (Place::Root, None) => true,
            (Place::Member(parent, name), Some((Step::Member(last), before))) => {
                name == last && parent.is(before)
            }
            (Place::Item(parent, index), Some((Step::Item(last), before))) => {
                index == last && parent.is(before)
            }
            (Place::Root | Place::Member(..) | Place::Item(..), _) => false,
        }
    }
}

/// A JSON pointer (RFC 6901) below `root`.
pub(crate) fn pointer(root: &str, path: &[Step]) -> String {
    let mut pointer = root.to_owned();
    for step in path {
        let step = match step {
            Step::Member(name) => format!("/{}", pointer_segment(name)),
            Step::Item(index) => format!("/{index}"),
        };
        if pointer.len() + step.len() > MAX_POINTER {
            break;
        }
        pointer.push_str(&step);
    }
    pointer
}

struct Reading {
    errors: Vec<FieldError>,
    /// How many numbers were read.
    numbers: usize,
    /// Which of the numbers are integers that 64 bits do not hold, in order.
    wide: Vec<usize>,
}

impl Reading {
    fn fail(&mut self, place: &Place<'_>, code: &'static str, detail: &str) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(FieldError {
                pointer: pointer("", &place.path()),
                code,
                detail: detail.to_owned(),
            });
        }
    }

    /// U+0000 is no control character like others: there is no column that takes it.
    fn check_text(&mut self, place: &Place<'_>, text: &str, detail: &str) {
        if text.contains('\0') {
            self.fail(place, "invalid_text", detail);
        }
    }

    fn check_number(&mut self, place: &Place<'_>) {
        if self.wide.binary_search(&self.numbers).is_ok() {
            let detail = "must be an integer of 64 bits; send a larger one as text";
            self.fail(place, "invalid_value", detail);
        }
        self.numbers += 1;
    }
}

/// A value at its place.
struct Node<'a> {
    reading: &'a mut Reading,
    place: Place<'a>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        self.reading.check_number(&self.place);
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        self.reading.check_number(&self.place);
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        self.reading.check_number(&self.place);
        Ok(integer(value).map_or_else(|| value.into(), Value::from))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        self.reading
            .check_text(&self.place, text, "must not contain U+0000");
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(Node {
            reading: &mut *self.reading,
            place: Place::Item(&self.place, items.len()),
        })? {
            items.push(item);
        }
        Ok(items.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            self.reading
                .check_text(&self.place, &name, "must not have a member whose name has U+0000");
            let place = Place::Member(&self.place, &name);
            if members.contains_key(&name) {
                self.reading
                    .fail(&place, "duplicate_field", "is there more than once");
            }
            let value = map.next_value_seed(Node {
                reading: &mut *self.reading,
                place,
            })?;
            members.insert(name, value);
        }
        Ok(members.into())
    }
}

/// The integer that a fraction is written for. Beyond 2^53 what is written and what was read may differ.
fn integer(value: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let is_minus_zero = value == 0.0 && value.is_sign_negative();
    // The cast cannot truncate: the number is whole and in range.
    (value.fract() == 0.0 && value.abs() <= EXACT && !is_minus_zero).then_some(value as i64)
}

/// Which of the numbers in a text, from 0, are integers that neither `i64` nor `u64` holds: `serde_json` takes those for
/// fractions. [`MAX_ERRORS`] of them at most. A text that is not JSON has any or none.
fn wide_integers(text: &[u8]) -> Vec<usize> {
    let (mut wide, mut numbers, mut at) = (Vec::new(), 0, 0);
    while at < text.len() && wide.len() < MAX_ERRORS {
        let rest = &text[at..];
        at += match rest[0] {
            b'"' => string_length(rest),
            b'-' | b'0'..=b'9' => {
                let token = number(rest);
                if is_wide_integer(token) {
                    wide.push(numbers);
                }
                numbers += 1;
                token.len()
            }
            _ => 1,
        };
    }
    wide
}

/// How long the string is that a text begins with, quotes included.
fn string_length(text: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = text.get(at) {
        at += match byte {
            b'"' => return at + 1,
            b'\\' => 2,
            _ => 1,
        };
    }
    text.len()
}

/// The number that a text begins with.
fn number(text: &[u8]) -> &[u8] {
    let is_inner = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
    let length = text.iter().position(|byte| !is_inner(byte)).unwrap_or(text.len());
    &text[..length]
}

fn is_wide_integer(token: &[u8]) -> bool {
    // The shortest integers that 64 bits do not hold have 19 digits.
    token.len() >= 19
        && token.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'-'))
        && std::str::from_utf8(token)
            .is_ok_and(|token| token.parse::<i64>().is_err() && token.parse::<u64>().is_err())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn errors(text: &str) -> Vec<(String, &'static str)> {
        let errors = read(text.as_bytes()).unwrap().errors;
        errors
            .into_iter()
            .map(|error| (error.pointer, error.code))
            .collect()
    }

    #[test]
    fn duplicate_members_are_found_at_any_depth() {
        assert_eq!(
            errors(r#"{"a":1,"b":[{"c":{"d/e":1,"d/e":1}}],"a":2,"\u0061":3}"#),
            [
                ("/b/0/c/d~1e".into(), "duplicate_field"),
                ("/a".into(), "duplicate_field"),
                ("/a".into(), "duplicate_field"),
            ]
        );
        assert_eq!(errors(r#"{"a":{"b":1},"b":{"b":1}}"#), []);
    }

    #[test]
    fn u_0000_is_found_in_texts_and_in_names() {
        assert_eq!(
            errors(r#"{"a":["x","\u0000"],"b":{"c\u0000":1},"d":"\\u0000"}"#),
            [("/a/1".into(), "invalid_text"), ("/b".into(), "invalid_text")]
        );
    }

    #[test]
    fn integers_outside_64_bits_are_found() {
        let text = r#"{"18446744073709551616": 1, "a": [18446744073709551615, -9223372036854775808,
            18446744073709551616, -9223372036854775809, 1e300, 123456789012345678901234.5], "b\"9": 99999999999999999999}"#;
        assert_eq!(
            errors(text),
            [
                ("/a/2".into(), "invalid_value"),
                ("/a/3".into(), "invalid_value"),
                ("/b\"9".into(), "invalid_value"),
            ]
        );
    }

    #[test]
    fn whole_fractions_are_integers() {
        let read = |text: &str| read(text.as_bytes()).unwrap().value;
        assert_eq!(read("[7.0, 7e0, -3.0, 70e-1]"), json!([7, 7, -3, 7]));
        assert_eq!(read("9007199254740992.0"), json!(9_007_199_254_740_992_u64));
        for fraction in ["7.5", "-0.0", "1e16", "1e300"] {
            assert!(read(fraction).is_f64(), "{fraction}");
        }
    }

    #[test]
    fn neither_errors_nor_pointers_grow_without_bound() {
        let name = "x".repeat(100_000);
        let text = format!("{{\"{name}\":[{}0]}}", "\"\\u0000\",".repeat(1_000));
        let errors = errors(&text);
        assert_eq!(errors.len(), MAX_ERRORS);
        assert!(errors.iter().all(|(pointer, _)| pointer.is_empty()));
        let wide = format!("[{}0]", "99999999999999999999,".repeat(1_000));
        assert_eq!(super::tests::errors(&wide).len(), MAX_ERRORS);
    }

    #[test]
    fn what_is_not_json_is_an_error() {
        let unclosed = "[".repeat(200);
        for text in ["", "{", "[1,]", "{}{}", "\"\\ud800\"", "1e400", &unclosed] {
            let read = read(text.as_bytes());
            assert!(matches!(read, Err(Unreadable::Malformed(_))), "{text}");
        }
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(read(deep(127).as_bytes()).is_ok());
        let read = read(deep(128).as_bytes());
        assert!(matches!(read, Err(Unreadable::TooDeep)));
    }
}
