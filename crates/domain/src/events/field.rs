use serde_json::{Map, Value, json};

/// A time and an id as examples show them.
const EXAMPLE_TIME: &str = "2026-01-31T12:00:00Z";
const EXAMPLE_ID: &str = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12";

/// A field of the object that an event is about, with an example.
///
/// ```
/// use tenantry_domain::events::Field;
///
/// const NOTE: &[Field] = &[Field::id("id"), Field::text("text", "Call Ada"), Field::time("read_at").nullable()];
/// assert_eq!(NOTE[1].example(), "Call Ada");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    name: &'static str,
    shape: Shape,
    nullable: bool,
    absent: bool,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Id,
    Text(&'static str),
    Choice(&'static [&'static str]),
    Time,
    Integer(i64),
    Flag(bool),
    Texts(&'static [&'static str]),
    Object,
}

impl Field {
    const fn new(name: &'static str, shape: Shape) -> Self {
        Self {
            name,
            shape,
            nullable: false,
            absent: false,
        }
    }

    /// A UUID.
    pub const fn id(name: &'static str) -> Self {
        Self::new(name, Shape::Id)
    }

    /// A text, with an example.
    pub const fn text(name: &'static str, example: &'static str) -> Self {
        Self::new(name, Shape::Text(example))
    }

    /// A text of a list that may become longer, so receivers must accept others. The example is the first one.
    pub const fn choice(name: &'static str, values: &'static [&'static str]) -> Self {
        Self::new(name, Shape::Choice(values))
    }

    /// A time (RFC 3339).
    pub const fn time(name: &'static str) -> Self {
        Self::new(name, Shape::Time)
    }

    /// An integer of up to 64 bits.
    pub const fn integer(name: &'static str, example: i64) -> Self {
        Self::new(name, Shape::Integer(example))
    }

    /// True or false.
    pub const fn flag(name: &'static str, example: bool) -> Self {
        Self::new(name, Shape::Flag(example))
    }

    /// A list of texts.
    pub const fn texts(name: &'static str, example: &'static [&'static str]) -> Self {
        Self::new(name, Shape::Texts(example))
    }

    /// An object whose fields are not part of the catalogue.
    pub const fn object(name: &'static str) -> Self {
        Self::new(name, Shape::Object)
    }

    /// The same field, which may be null.
    #[must_use]
    pub const fn nullable(self) -> Self {
        Self {
            nullable: true,
            ..self
        }
    }

    /// The same field, which is null in most events, so that it is null in the example.
    #[must_use]
    pub const fn usually_null(self) -> Self {
        Self {
            nullable: true,
            absent: true,
            ..self
        }
    }

    /// The name of the field.
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The JSON Schema (2020-12) of its values.
    pub fn schema(&self) -> Value {
        let (kind, more) = match self.shape {
            Shape::Id => ("string", Some(("format", json!("uuid")))),
            Shape::Text(_) => ("string", None),
            Shape::Choice(values) => ("string", Some(("examples", json!(values)))),
            Shape::Time => ("string", Some(("format", json!("date-time")))),
            Shape::Integer(_) => ("integer", Some(("format", json!("int64")))),
            Shape::Flag(_) => ("boolean", None),
            Shape::Texts(_) => ("array", Some(("items", json!({"type": "string"})))),
            Shape::Object => ("object", None),
        };
        let mut schema = Map::new();
        let kind = if self.nullable {
            json!([kind, "null"])
        } else {
            json!(kind)
        };
        schema.insert("type".to_owned(), kind);
        schema.extend(more.map(|(name, value)| (name.to_owned(), value)));
        schema.into()
    }

    /// An example of its values.
    pub fn example(&self) -> Value {
        if self.absent {
            return Value::Null;
        }
        match self.shape {
            Shape::Id => json!(EXAMPLE_ID),
            Shape::Text(example) => json!(example),
            Shape::Choice(values) => json!(values.first()),
            Shape::Time => json!(EXAMPLE_TIME),
            Shape::Integer(example) => json!(example),
            Shape::Flag(example) => json!(example),
            Shape::Texts(example) => json!(example),
            Shape::Object => json!({}),
        }
    }
}
