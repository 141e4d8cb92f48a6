use crate::quote::{escape_in_literal, identifier};

/// Text for a terminal or a comment: on one line, and without what would steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\n' | '\r' | '\t' => line.push(' '),
            letter if is_unprintable(letter) => line.extend(letter.escape_unicode()),
            letter => line.push(letter),
        }
    }
    line
}

/// SQL with names and texts that PostgreSQL quoted, on one line and without what would steer a terminal.
pub(crate) fn one_line(sql: &str) -> String {
    let mut rest = sql;
    let mut line = String::with_capacity(sql.len());
    while let Some(start) = rest.find(['"', '\'']) {
        let (before, quoted) = rest.split_at(start);
        let end = end_of_quote(quoted);
        let (quoted, after) = quoted.split_at(end);
        let is_escape = before.ends_with(['E', 'e']) && quoted.starts_with('\'');
        let before = if is_escape {
            &before[..before.len() - 1]
        } else {
            before
        };
        line.push_str(&before.replace(['\n', '\r'], " "));
        line.push_str(&requoted(quoted, is_escape));
        rest = after;
    }
    line + &rest.replace(['\n', '\r'], " ")
}

/// Control characters, line separators, and what reverses the direction of text.
pub(crate) fn is_unprintable(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Where the quote ends that a text begins with. A doubled quote is none.
fn end_of_quote(text: &str) -> usize {
    let quote = if text.starts_with('"') { '"' } else { '\'' };
    let mut from = 1;
    while let Some(found) = text[from..].find(quote) {
        from += found + 1;
        if !text[from..].starts_with(quote) {
            return from;
        }
        from += 1;
    }
    text.len()
}

fn requoted(quoted: &str, is_escape: bool) -> String {
    let prefix = if is_escape { "E" } else { "" };
    if !quoted.chars().any(is_unprintable) {
        return format!("{prefix}{quoted}");
    }
    let inner = quoted.get(1..quoted.len() - 1).unwrap_or_default();
    if quoted.starts_with('"') {
        return identifier(&inner.replace("\"\"", "\""));
    }
    let escape = |letter: char| match letter {
        '\\' if is_escape => "\\".to_owned(),
        letter => escape_in_literal(letter),
    };
    format!("E'{}'", inner.chars().map(escape).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_postgresql_quoted_is_made_visible() {
        for (sql, visible) in [
            (
                "f(\"a\nb\" text, \"c\"\"d\")",
                "f(U&\"a\\000ab\" text, \"c\"\"d\")",
            ),
            ("x = 'it''s\n'::text\n AND y", "x = E'it''s\\u000a'::text  AND y"),
            ("x = E'a\\\\b\n'", "x = E'a\\\\b\\u000a'"),
            ("x = E'a\\\\b'", "x = E'a\\\\b'"),
            ("plain", "plain"),
            ("\"open", "\"open"),
        ] {
            assert_eq!(one_line(sql), visible);
        }
    }

    #[test]
    fn nothing_steers_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb c");
    }
}
