//! Reads a type from a tree, and says everything that does not fit at once.
//!
//! A type that is derived with serde stops at the first thing that does not fit. So it is read again without that, as
//! often as something else does not fit: unknown fields are passed over, a value that does not fit is left out, and for a
//! required field that is missing or left out a stand-in is found, which only serves to come further. What was read with
//! any of that is thrown away.

use std::{cell::RefCell, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{
        self, DeserializeOwned, DeserializeSeed, Error as _, Expected, IntoDeserializer, MapAccess,
        SeqAccess, Unexpected, Visitor,
        value::{MapAccessDeserializer, StrDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::{Map, Value, json};
use tenantry_domain::kernel::{FieldError, Invalid};

use crate::extract::json::{MAX_ERRORS, Place, Step, pointer};

/// How often a body is read at most, and how many bytes all of that may come to: a large body that does not fit costs
/// little more than one that does.
const MAX_PASSES: usize = 64;
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// What the leaves of a tree are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// JSON values of the types that they have.
    Typed,
    /// Text, which is parsed as whatever is asked for.
    Text,
}

/// A tree that a type is to be read from.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    /// The tree.
    pub value: &'a Value,
    /// Whether leaves have JSON types or are text to parse.
    pub leaves: Leaves,
    /// Where its root is, for pointers.
    pub root: &'a str,
    /// How many bytes its text has.
    pub size: usize,
}

impl Tree<'_> {
    /// The type, unless something does not fit. `errors` are those that are known already.
    ///
    /// # Errors
    /// Everything that does not fit: types, values, unknown fields, missing fields; [`MAX_ERRORS`] at most.
    pub(crate) fn read<T: DeserializeOwned>(&self, errors: Vec<FieldError>) -> Result<T, Invalid> {
        let mut pass = Pass::new(self, errors);
        let passes = MAX_PASSES.min(1 + MAX_BYTES / self.size.max(1));
        for _ in 0..passes {
            let reader = Reader {
                value: self.value,
                pass: &pass,
                place: Place::Root,
            };
            match T::deserialize(reader) {
                Ok(read) if pass.errors.borrow().is_empty() => return Ok(read),
                Ok(_) => break,
                Err(fault) => {
                    if !pass.learn(fault) || pass.is_full() {
                        break;
                    }
                }
            }
        }
        let mut errors = pass.errors.into_inner();
        errors.sort_by(|one, other| one.pointer.cmp(&other.pointer));
        Err(Invalid(errors))
    }
}

/// What the passes have found so far.
struct Pass<'a> {
    leaves: Leaves,
    root: &'a str,
    errors: RefCell<Vec<FieldError>>,
    /// Where the last error came from.
    failed: RefCell<Option<Vec<Step>>>,
    /// What is left out.
    skipped: Vec<Vec<Step>>,
    stand_ins: Vec<StandIn>,
}

/// Something in the place of a required field that is not there.
struct StandIn {
    path: Vec<Step>,
    value: Value,
    /// How many kinds of values have been tried.
    tried: usize,
    /// Whether a value that an error named has been tried.
    named: bool,
}

impl<'a> Pass<'a> {
    fn new(tree: &Tree<'a>, errors: Vec<FieldError>) -> Self {
        Self {
            leaves: tree.leaves,
            root: tree.root,
            errors: errors.into(),
            failed: RefCell::default(),
            skipped: Vec::new(),
            stand_ins: Vec::new(),
        }
    }

    /// Notes an error, unless there is one of the same place: the first says enough.
    fn note(&self, path: &[Step], code: &'static str, detail: impl Into<String>) {
        let pointer = pointer(self.root, path);
        let mut errors = self.errors.borrow_mut();
        let is_known = |error: &FieldError| error.pointer == pointer;
        if errors.len() < MAX_ERRORS && !errors.iter().any(is_known) {
            errors.push(FieldError {
                pointer,
                code,
                detail: detail.into(),
            });
        }
    }

    fn is_full(&self) -> bool {
        self.errors.borrow().len() >= MAX_ERRORS
    }

    /// The innermost place counts: errors come up through all that is around it.
    fn note_place(&self, place: &Place<'_>) {
        self.failed.borrow_mut().get_or_insert_with(|| place.path());
    }

    /// Notes an error and arranges for the next pass to come further; false when it would not.
    fn learn(&mut self, fault: Fault) -> bool {
        let path = self.failed.take().unwrap_or_default();
        match fault {
            Fault::Missing(field) => {
                let of_body = self.stand_in_around(&path).is_none();
                let path = [path, vec![Step::Member(field.to_owned())]].concat();
                if of_body && !self.skipped.contains(&path) {
                    self.note(&path, "required", "is required");
                }
                self.stand_ins.push(StandIn::new(path));
                true
            }
            fault => match self.stand_in_around(&path) {
                Some(index) => self.try_another(index, &fault),
                None => {
                    // A rule about the whole may fail only because a part has been left out.
                    if !self.has_gaps_below(&path) {
                        let (code, detail) = fault.say();
                        self.note(&path, code, detail);
                    }
                    self.skip(path)
                }
            },
        }
    }

    fn skip(&mut self, path: Vec<Step>) -> bool {
        let is_root = path.is_empty();
        self.skipped.push(path);
        !is_root
    }

    /// Gives up the object that needs the stand-in when nothing is left to try.
    fn try_another(&mut self, index: usize, fault: &Fault) -> bool {
        let path = self.stand_ins[index].path.clone();
        self.stand_ins
            .retain(|other| other.path == path || !other.path.starts_with(&path));
        let Some(place) = self.stand_ins.iter().position(|other| other.path == path) else {
            return false;
        };
        if self.stand_ins[place].advance(fault) {
            return true;
        }
        self.stand_ins.remove(place);
        let parent = &path[..path.len() - 1];
        match self.stand_in_around(parent) {
            Some(outer) => self.try_another(outer, fault),
            None => self.skip(parent.to_vec()),
        }
    }

    /// The innermost stand-in that a path leads into.
    fn stand_in_around(&self, path: &[Step]) -> Option<usize> {
        let around = self.stand_ins.iter().enumerate();
        around
            .filter(|(_, stand_in)| path.starts_with(&stand_in.path))
            .max_by_key(|(_, stand_in)| stand_in.path.len())
            .map(|(index, _)| index)
    }

    fn has_gaps_below(&self, path: &[Step]) -> bool {
        let stand_ins = self.stand_ins.iter().map(|stand_in| &stand_in.path);
        let mut gaps = self.skipped.iter().chain(stand_ins);
        gaps.any(|gap| gap.starts_with(path))
    }

    fn skips(&self, place: &Place<'_>) -> bool {
        self.skipped.iter().any(|path| place.is(path))
    }
}

impl StandIn {
    fn new(path: Vec<Step>) -> Self {
        Self {
            path,
            value: json!(""),
            tried: 0,
            named: false,
        }
    }

    /// The next value that may fit; false when there is none.
    fn advance(&mut self, fault: &Fault) -> bool {
        if let Some(name) = fault.names()
            && !self.named
        {
            (self.value, self.named) = (name.into(), true);
            return true;
        }
        self.tried += 1;
        self.value = match self.tried {
            1 => json!(0),
            2 => json!(false),
            3 => json!([]),
            4 => json!({}),
            5 => json!("a"),
            6 => json!("00000000-0000-0000-0000-000000000000"),
            7 => json!("2000-01-01T00:00:00Z"),
            _ => return false,
        };
        true
    }
}

/// What does not fit, as serde says it.
#[derive(Debug)]
enum Fault {
    Missing(&'static str),
    Unknown,
    Type(String),
    Value(String),
    Other(String),
}

impl Fault {
    /// The code and the detail of it. Nothing of the input is in either.
    fn say(&self) -> (&'static str, String) {
        match self {
            Self::Missing(_) => ("required", "is required".into()),
            Self::Unknown => ("unknown_field", "is not known here".into()),
            Self::Type(expected) => ("invalid_type", requirement(expected)),
            Self::Value(expected) => ("invalid_value", requirement(expected)),
            Self::Other(text) if text.starts_with("UUID parsing failed") => {
                ("invalid_id", "must be a UUID".into())
            }
            Self::Other(text) if text.starts_with("must ") => ("invalid_value", text.clone()),
            Self::Other(_) => ("invalid_value", "is not valid".into()),
        }
    }

    /// The first value that would do, where it says which would.
    fn names(&self) -> Option<&str> {
        let (Self::Type(text) | Self::Value(text) | Self::Other(text)) = self else {
            return None;
        };
        text.split('`').nth(1)
    }
}

/// What serde expected, as one says it to a person.
fn requirement(expected: &str) -> String {
    let integer =
        |text: &str| text.len() > 1 && matches!(&text[..1], "u" | "i") && text[1..].parse::<u8>().is_ok();
    match expected {
        kind if integer(kind) => "must be an integer in range".into(),
        kind if kind.starts_with("struct ") => "must be an object".into(),
        kind => format!("must be {kind}"),
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.say().1)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(text: T) -> Self {
        Self::Other(text.to_string())
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Type(expected.to_string())
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Value(expected.to_string())
    }

    fn unknown_variant(_: &str, names: &'static [&'static str]) -> Self {
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        Self::Other(format!("must be one of {}", names.join(", ")))
    }

    fn unknown_field(_: &str, _: &'static [&'static str]) -> Self {
        Self::Unknown
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }
}

/// A value of the tree at its place.
#[derive(Clone, Copy)]
struct Reader<'a> {
    value: &'a Value,
    pass: &'a Pass<'a>,
    place: Place<'a>,
}

impl<'a> Reader<'a> {
    fn read<'de, S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Fault> {
        seed.deserialize(self)
            .inspect_err(|_| self.pass.note_place(&self.place))
    }

    fn members<'p>(&'p self, map: &'p Map<String, Value>) -> Members<'p> {
        let here = &self.place;
        let given = map.iter().map(|(name, value)| (name.as_str(), value));
        let given = given.filter(move |(name, _)| !self.pass.skips(&Place::Member(here, name)));
        let stand_ins = self.pass.stand_ins.iter().filter_map(move |stand_in| {
            let Some((Step::Member(name), parent)) = stand_in.path.split_last() else {
                return None;
            };
            here.is(parent).then_some((name.as_str(), &stand_in.value))
        });
        Members {
            entries: Box::new(given.chain(stand_ins)),
            value: None,
            pass: self.pass,
            place: here,
        }
    }

    fn text(&self) -> Option<&'a str> {
        match self.value {
            Value::String(text) if self.pass.leaves == Leaves::Text => Some(text),
            _ => None,
        }
    }

    fn mismatch(&self, expected: &dyn Expected) -> Fault {
        Fault::invalid_type(Unexpected::Other("another type"), expected)
    }
}

macro_rules! parse {
    ($($method:ident $visit:ident $expected:literal)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            let Some(text) = self.text() else {
                return self.deserialize_any(visitor);
            };
            visitor.$visit(text.parse().map_err(|_| Fault::custom(concat!("must be ", $expected)))?)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64(), number.as_f64()) {
                (Some(value), _, _) => visitor.visit_u64(value),
                (None, Some(value), _) => visitor.visit_i64(value),
                (None, None, Some(value)) => visitor.visit_f64(value),
                (None, None, None) => Err(self.mismatch(&visitor)),
            },
            Value::String(text) => visitor.visit_str(text),
            Value::Array(items) => visitor.visit_seq(Elements {
                items: items.iter().enumerate(),
                pass: self.pass,
                place: &self.place,
            }),
            Value::Object(map) => visitor.visit_map(self.members(map)),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    /// Derived implementations take a list for an object too; clients may not.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if self.value.is_object() {
            self.deserialize_any(visitor)
        } else {
            Err(self.mismatch(&"an object"))
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.value {
            Value::String(text) => {
                let name: StrDeserializer<'_, Fault> = text.as_str().into_deserializer();
                visitor.visit_enum(name)
            }
            Value::Object(map) => visitor.visit_enum(MapAccessDeserializer::new(self.members(map))),
            _ => {
                let Fault::Other(detail) = Fault::unknown_variant("", names) else {
                    return Err(self.mismatch(&visitor));
                };
                let names = detail.strip_prefix("must be ").unwrap_or_default();
                Err(self.mismatch(&names))
            }
        }
    }

    parse! {
        deserialize_bool visit_bool "true or false"
        deserialize_i8 visit_i8 "an integer in range"
        deserialize_i16 visit_i16 "an integer in range"
        deserialize_i32 visit_i32 "an integer in range"
        deserialize_i64 visit_i64 "an integer in range"
        deserialize_u8 visit_u8 "an integer in range"
        deserialize_u16 visit_u16 "an integer in range"
        deserialize_u32 visit_u32 "an integer in range"
        deserialize_u64 visit_u64 "an integer in range"
        deserialize_f32 visit_f32 "a number"
        deserialize_f64 visit_f64 "a number"
    }

    forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

/// The members of an object, without what is left out and with stand-ins for what is missing.
struct Members<'a> {
    entries: Box<dyn Iterator<Item = (&'a str, &'a Value)> + 'a>,
    value: Option<(&'a str, &'a Value)>,
    pass: &'a Pass<'a>,
    place: &'a Place<'a>,
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = Fault;

    /// The names of a map, which may be of any type that a text can be parsed as.
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some((name, value)) = self.entries.next() else {
            return Ok(None);
        };
        self.value = Some((name, value));
        let place = Place::Member(self.place, name);
        let name = Value::from(name);
        let names = Pass {
            leaves: Leaves::Text,
            root: "",
            errors: RefCell::default(),
            failed: RefCell::default(),
            skipped: Vec::new(),
            stand_ins: Vec::new(),
        };
        let reader = Reader {
            value: &name,
            pass: &names,
            place,
        };
        let read = seed.deserialize(reader).map(Some);
        read.inspect_err(|_| self.pass.note_place(&place))
    }

    /// The names of the fields of a type. What is none of them is noted and passed over.
    fn next_key<K: Deserialize<'de>>(&mut self) -> Result<Option<K>, Fault> {
        for (name, value) in self.entries.by_ref() {
            let place = Place::Member(self.place, name);
            let text: StrDeserializer<'_, Fault> = name.into_deserializer();
            match K::deserialize(text) {
                Ok(key) => {
                    self.value = Some((name, value));
                    return Ok(Some(key));
                }
                Err(fault @ Fault::Unknown) => {
                    let (code, detail) = fault.say();
                    self.pass.note(&place.path(), code, detail);
                }
                Err(fault) => {
                    self.pass.note_place(&place);
                    return Err(fault);
                }
            }
        }
        Ok(None)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (name, value) = self.value.take().ok_or_else(|| Fault::custom("is not valid"))?;
        let reader = Reader {
            value,
            pass: self.pass,
            place: Place::Member(self.place, name),
        };
        reader.read(seed)
    }
}

/// The items of a list, without what is left out.
struct Elements<'a> {
    items: std::iter::Enumerate<std::slice::Iter<'a, Value>>,
    pass: &'a Pass<'a>,
    place: &'a Place<'a>,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let (pass, here) = (self.pass, self.place);
        let next = self
            .items
            .find(|(index, _)| !pass.skips(&Place::Item(here, *index)));
        let Some((index, value)) = next else {
            return Ok(None);
        };
        let reader = Reader {
            value,
            pass,
            place: Place::Item(here, index),
        };
        reader.read(seed).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use tenantry_domain::flags::FlagDefinition;
    use tenantry_domain::kernel::ProjectId;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        id: ProjectId,
        name: String,
        count: u32,
        inner: Inner,
        #[serde(default)]
        list: Vec<Inner>,
        #[serde(default)]
        by_number: BTreeMap<u8, bool>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        yes: bool,
        kind: Kind,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Kind {
        One,
        Two,
    }

    fn errors<T: DeserializeOwned>(value: Value) -> Vec<String> {
        let tree = Tree {
            value: &value,
            leaves: Leaves::Typed,
            root: "",
            size: 100,
        };
        let errors = tree
            .read::<T>(Vec::new())
            .err()
            .map(|invalid| invalid.0)
            .unwrap_or_default();
        errors
            .into_iter()
            .map(|error| format!("{} {}", error.pointer, error.code))
            .collect()
    }

    #[test]
    fn what_fits_is_read() {
        let inner = json!({"yes": true, "kind": "two"});
        let id = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11";
        let fits = json!({"id": id, "name": "a", "count": 1, "inner": inner, "list": [inner], "by_number": {"7": true}});
        assert_eq!(errors::<Outer>(fits), [""; 0]);
    }

    #[test]
    fn everything_that_does_not_fit_is_reported_at_once() {
        let body = json!({
            "id": "x", "count": -1, "surprise": 1, "another/one": {},
            "inner": {"yes": 1, "kind": 5, "more": 1},
            "list": [{"yes": true, "kind": "three"}, [], {"yes": true, "kind": "one", "x": 1}],
            "by_number": {"256": true, "1": "y"},
        });
        assert_eq!(
            errors::<Outer>(body),
            [
                "/another~1one unknown_field",
                "/by_number/1 invalid_type",
                "/by_number/256 invalid_value",
                "/count invalid_value",
                "/id invalid_id",
                "/inner/kind invalid_type",
                "/inner/more unknown_field",
                "/inner/yes invalid_type",
                "/list/0/kind invalid_value",
                "/list/1 invalid_type",
                "/list/2/x unknown_field",
                "/name required",
                "/surprise unknown_field",
            ]
        );
    }

    #[test]
    fn every_missing_field_is_reported_at_once() {
        assert_eq!(
            errors::<Outer>(json!({"inner": {}})),
            [
                "/count required",
                "/id required",
                "/inner/kind required",
                "/inner/yes required",
                "/name required"
            ]
        );
        // What is within a field that is not there is not asked for.
        assert_eq!(
            errors::<Outer>(json!({})),
            [
                "/count required",
                "/id required",
                "/inner required",
                "/name required"
            ]
        );
        assert_eq!(errors::<Outer>(json!([])), [" invalid_type"]);
    }

    #[test]
    fn errors_in_lists_of_a_flag_name_their_place() {
        let flag = json!({
            "key": "a", "type": "boolan", "variants": {"on": true}, "default_variant": "on", "off_variant": 1,
            "rules": [
                {"level": "planet", "serve": {"variant": "on"}},
                {"level": "plan", "serve": {"split": {"parts": [{"variant": "on", "percent": 101}]}}},
                {"level": "plan", "from": "soon", "when": [{"attribute": "a"}], "serve": {}},
            ],
        });
        assert_eq!(
            errors::<FlagDefinition>(flag),
            [
                "/off_variant invalid_type",
                "/rules/0/level invalid_value",
                "/rules/1/serve/split/parts/0/percent invalid_value",
                "/rules/2/from invalid_value",
                "/rules/2/serve invalid_value",
                "/rules/2/when/0 invalid_value",
                "/type invalid_value",
            ]
        );
    }

    #[test]
    fn a_large_body_that_does_not_fit_is_read_few_times() {
        let value = json!({"inner": {}});
        let tree = Tree {
            value: &value,
            leaves: Leaves::Typed,
            root: "/query",
            size: 10 * MAX_BYTES,
        };
        let errors = tree.read::<Outer>(Vec::new()).unwrap_err().0;
        assert_eq!(errors.len(), 1);
        assert!(errors[0].pointer.starts_with("/query/"));
    }
}
