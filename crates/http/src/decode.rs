//! What a deserializer's complaint is to a client: a pointer, a code and a sentence that echoes nothing of
//! the input.

use serde_path_to_error::{Path, Segment};
use tenantry_domain::FieldError;

/// The complaint as a field error; `root` is put before the pointer.
///
/// Serde tells what is wrong in English only. Its sentences are as old as its first release and are tested
/// below; one that is not recognised still ends as `invalid_value` at the right place.
pub(crate) fn field_error(root: &str, path: &Path, message: &str) -> FieldError {
    // serde_json adds where in the text it was; the pointer says it better.
    let message = message
        .rsplit_once(" at line ")
        .map_or(message, |(message, _)| message);
    let here = format!("{root}{}", pointer(path));
    let expected = message
        .rsplit_once(", expected ")
        .map(|(_, expected)| requirement(expected));
    if let Some(field) = quoted(message, "missing field `") {
        return error(format!("{here}/{}", escape(field)), "required", "is required");
    }
    if let Some(field) = quoted(message, "duplicate field `") {
        return error(
            format!("{here}/{}", escape(field)),
            "duplicate_field",
            "is there more than once",
        );
    }
    if message.starts_with("unknown field `") {
        return error(here, "unknown_field", "is not known here");
    }
    if message.starts_with("UUID parsing failed") {
        return error(here, "invalid_id", "must be a UUID");
    }
    let code = if message.starts_with("invalid type: ") {
        "invalid_type"
    } else {
        "invalid_value"
    };
    match expected {
        Some(requirement) => error(here, code, requirement),
        None if message.starts_with("must ") => error(here, code, message),
        None => error(here, code, "is not valid"),
    }
}

fn error(pointer: String, code: &'static str, detail: impl Into<String>) -> FieldError {
    FieldError {
        pointer,
        code,
        detail: detail.into(),
    }
}

fn quoted<'a>(message: &'a str, before: &str) -> Option<&'a str> {
    message.strip_prefix(before)?.split('`').next()
}

/// What serde expected, as something one can say to a person.
fn requirement(expected: &str) -> String {
    let integer =
        |text: &str| text.len() > 1 && matches!(&text[..1], "u" | "i") && text[1..].parse::<u8>().is_ok();
    match expected {
        kind if integer(kind) => "must be an integer in range".into(),
        kind if kind.starts_with("struct ") => "must be an object".into(),
        kind => format!("must be {kind}"),
    }
}

/// A JSON pointer (RFC 6901).
fn pointer(path: &Path) -> String {
    let segment = |segment: &Segment| match segment {
        Segment::Seq { index } => format!("/{index}"),
        Segment::Map { key } => format!("/{}", escape(key)),
        // The name of a variant is a value here and not a place.
        Segment::Enum { .. } | Segment::Unknown => String::new(),
    };
    path.iter().map(segment).collect()
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
