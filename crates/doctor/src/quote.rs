/// A name as SQL wants it, bare where that is allowed, so that a report is pleasant to read.
///
/// No line break and nothing else invisible is left in what comes out: it ends up in comments of scripts, where
/// a line break would make a statement of what follows, and on terminals.
pub(crate) fn identifier(name: &str) -> String {
    if is_plain(name) && !KEYWORDS.contains(&name) {
        return name.to_owned();
    }
    if !name.chars().any(is_unprintable) {
        return format!("\"{}\"", name.replace('"', "\"\""));
    }
    let escaped: String = name.chars().map(escape_in_identifier).collect();
    format!("U&\"{escaped}\"")
}

/// A name with its schema.
pub(crate) fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", identifier(schema), identifier(name))
}

/// A text as SQL wants it, whatever is in it.
///
/// A backslash means itself only while `standard_conforming_strings` is on, so a text that has one is written
/// as an escape string, which means the same under either setting.
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if !quoted.contains('\\') && !quoted.chars().any(is_unprintable) {
        return format!("'{quoted}'");
    }
    let escaped: String = quoted.chars().map(escape_in_literal).collect();
    format!("E'{escaped}'")
}

/// The name of a setting in `RESET`, whose parts are quoted one by one.
pub(crate) fn setting(name: &str) -> String {
    let parts: Vec<String> = name.split('.').map(identifier).collect();
    parts.join(".")
}

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
pub(crate) fn visible(sql: &str) -> String {
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

fn is_plain(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_') && name.chars().all(inner)
}

/// Control characters, line separators, and what reverses the direction of text.
fn is_unprintable(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

fn escape_in_identifier(letter: char) -> String {
    match letter {
        '"' => "\"\"".to_owned(),
        '\\' => "\\\\".to_owned(),
        letter if is_unprintable(letter) => format!("\\{:04x}", u32::from(letter)),
        letter => letter.to_string(),
    }
}

fn escape_in_literal(letter: char) -> String {
    match letter {
        '\\' => "\\\\".to_owned(),
        letter if is_unprintable(letter) => format!("\\u{:04x}", u32::from(letter)),
        letter => letter.to_string(),
    }
}

/// What PostgreSQL does not take for a name unless it is quoted, of the versions 14 to 18.
const KEYWORDS: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "between",
    "bigint",
    "binary",
    "bit",
    "boolean",
    "both",
    "case",
    "cast",
    "char",
    "character",
    "check",
    "coalesce",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "dec",
    "decimal",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "exists",
    "extract",
    "false",
    "fetch",
    "float",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "greatest",
    "group",
    "grouping",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "inout",
    "int",
    "integer",
    "intersect",
    "interval",
    "into",
    "is",
    "isnull",
    "join",
    "json",
    "json_array",
    "json_arrayagg",
    "json_exists",
    "json_object",
    "json_objectagg",
    "json_query",
    "json_scalar",
    "json_serialize",
    "json_table",
    "json_value",
    "lateral",
    "leading",
    "least",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "merge_action",
    "national",
    "natural",
    "nchar",
    "none",
    "normalize",
    "not",
    "notnull",
    "null",
    "nullif",
    "numeric",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "out",
    "outer",
    "overlaps",
    "overlay",
    "placing",
    "position",
    "precision",
    "primary",
    "real",
    "references",
    "returning",
    "right",
    "row",
    "select",
    "session_user",
    "setof",
    "similar",
    "smallint",
    "some",
    "substring",
    "symmetric",
    "system_user",
    "table",
    "tablesample",
    "then",
    "time",
    "timestamp",
    "to",
    "trailing",
    "treat",
    "trim",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "values",
    "varchar",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlexists",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bare_only_where_that_is_allowed() {
        for (name, quoted) in [
            ("tasks", "tasks"),
            ("_2", "_2"),
            ("2a", "\"2a\""),
            ("", "\"\""),
            ("user", "\"user\""),
            ("Tasks", "\"Tasks\""),
            ("we\"ird", "\"we\"\"ird\""),
            ("größe", "\"größe\""),
            ("a\nb\\\"", "U&\"a\\000ab\\\\\"\"\""),
            ("a\u{202e}b", "U&\"a\\202eb\""),
        ] {
            assert_eq!(identifier(name), quoted);
        }
    }

    #[test]
    fn nothing_ends_a_literal_early() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'b"), r"E'a\\''b'");
        assert_eq!(literal("a\nb"), r"E'a\u000ab'");
    }

    #[test]
    fn what_postgresql_quoted_is_made_visible() {
        for (sql, visible_sql) in [
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
            assert_eq!(visible(sql), visible_sql);
        }
    }

    #[test]
    fn nothing_steers_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb c");
    }
}
