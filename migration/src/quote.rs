/// A name as SQL wants it, whatever is in it.
pub(crate) fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as SQL wants it, whatever is in it.
///
/// A backslash means itself only while `standard_conforming_strings` is on, so a text that has one is written
/// as an escape string, which means the same under either setting.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!(" E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_ends_a_literal_early() {
        assert_eq!(literal("plain"), "'plain'");
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'b"), r" E'a\\''b'");
    }

    #[test]
    fn nothing_ends_an_identifier_early() {
        assert_eq!(identifier("plain"), "\"plain\"");
        assert_eq!(identifier("a\"b"), "\"a\"\"b\"");
    }
}
