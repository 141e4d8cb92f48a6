use serde::de::IgnoredAny;
use serde_json::Value;
use uuid::Uuid;

use super::id_map::end_of_string;
use super::{ArchiveError, ColumnShape, Content, Manifest, TableContent, TableShape, content_of, excuses_of};
use crate::kernel::{TenantId, Time};

impl Manifest {
    /// Whether an export of this installation would have the same content of each table: what is imported is decided here, and never by
    /// an archive.
    ///
    /// # Errors
    /// [`ArchiveError::Untrusted`] names the first table that the manifest has as something else.
    pub fn check_content(&self, tables: &[TableShape]) -> Result<(), ArchiveError> {
        for table in &self.tables {
            let Some(shape) = tables.iter().find(|shape| shape.name == table.name) else {
                continue;
            };
            let here = match content_of(shape) {
                Content::Data => "data",
                Content::Record(_) => "record",
                Content::LeftOut(_) => "left out",
            };
            if table.content.as_str() != here {
                let (name, there) = (&table.name, table.content.as_str());
                return Err(ArchiveError::Untrusted(format!(
                    "the table {name} is '{there}' in it, and '{here}' in exports of this installation"
                )));
            }
        }
        Ok(())
    }

    /// The tables that are imported: those that are data here and in the archive.
    pub fn imports(&self, table: &TableShape) -> bool {
        let given = self.table(&table.name);
        content_of(table) == Content::Data && given.is_some_and(|given| given.content == TableContent::Data)
    }
}

/// Checks the rows of a table, one after the other, before any is written.
#[derive(Debug)]
pub struct RowCheck<'a> {
    table: &'a TableShape,
    tenant: TenantId,
    left_out: Vec<String>,
    /// The columns of the first row, which all others have as well.
    columns: Vec<String>,
    /// How many rows were checked.
    rows: u64,
}

impl<'a> RowCheck<'a> {
    /// How deep objects and arrays may be nested, which is as deep as requests may have them.
    const DEEPEST: usize = 128;

    /// Of a table of a tenant.
    pub fn new(table: &'a TableShape, tenant: TenantId) -> Self {
        let left_out = excuses_of(table).into_iter().map(|excuse| excuse.column);
        Self {
            table,
            tenant,
            left_out: left_out.collect(),
            columns: Vec::new(),
            rows: 0,
        }
    }

    /// Checks the next row: that it is written as exports write rows, has the columns of the first one, and a value of its type in each.
    ///
    /// # Errors
    /// [`ArchiveError::Misfit`] names the table, the row (from 1), and what is wrong.
    pub fn check(&mut self, row: &str) -> Result<(), ArchiveError> {
        self.rows += 1;
        self.problem(row).map_err(|problem| self.misfit(&problem))
    }

    /// What is wrong with the row that was checked last.
    pub fn misfit(&self, problem: &str) -> ArchiveError {
        let (name, number) = (&self.table.name, self.rows);
        ArchiveError::Misfit(format!("row {number} of the table {name}: {problem}"))
    }

    fn problem(&mut self, row: &str) -> Result<(), String> {
        if serde_json::from_str::<IgnoredAny>(row).is_err() || !row.starts_with('{') {
            return Err("it is not a JSON object".to_owned());
        }
        check_spelling(row)?;
        let members = members(row, Self::DEEPEST).ok_or("it is nested too deeply")?;
        if self.rows == 1 {
            self.columns = members.iter().map(|(name, _)| (*name).to_owned()).collect();
            self.check_columns()?;
        } else if !members.iter().map(|(name, _)| *name).eq(&self.columns) {
            return Err("it has other columns than the first row, or in another order".to_owned());
        }
        let tenant = self.tenant.to_string();
        for (name, value) in members {
            let Some(column) = self.table.column(name) else {
                return Err(format!("there is no column {name:.63}"));
            };
            check_value(column, value).map_err(|problem| format!("the column {name} {problem}"))?;
            let of_tenant = match self.table.name.as_str() {
                TableShape::TENANTS => "id",
                _ => "tenant_id",
            };
            if name == of_tenant && unquoted(value) != Some(tenant.as_str()) {
                return Err(format!("the column {name} has another tenant than the archive"));
            }
        }
        Ok(())
    }

    fn check_columns(&self) -> Result<(), String> {
        for (at, name) in self.columns.iter().enumerate() {
            if self.columns[..at].contains(name) {
                return Err(format!("the column {name:.63} is there twice"));
            }
            if self.left_out.contains(name) {
                return Err(format!("the column {name} is left out of archives"));
            }
        }
        match self.columns.iter().any(|name| name == "tenant_id") {
            true => Ok(()),
            false => Err("it has no tenant_id".to_owned()),
        }
    }
}

/// Exports escape what must be escaped and nothing else, so that an id or a name has one spelling.
fn check_spelling(row: &str) -> Result<(), String> {
    let mut rest = row;
    while let Some((_, behind)) = rest.split_once('\\') {
        let wrong = match behind.as_bytes() {
            [b'u', digits @ ..] => {
                let digits = digits
                    .get(..4)
                    .and_then(|digits| std::str::from_utf8(digits).ok());
                let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
                !code.is_some_and(|code| (1..0x20).contains(&code))
            }
            [b'/', ..] => true,
            _ => false,
        };
        if wrong {
            return Err("it has an escaped character that exports do not escape, or a zero".to_owned());
        }
        let escaped = behind.chars().next().map_or(0, char::len_utf8);
        rest = &behind[escaped..];
    }
    Ok(())
}

/// The members of a JSON object, as they are written: the names without their quotes. `None` where it is nested more deeply.
fn members(object: &str, deepest: usize) -> Option<Vec<(&str, &str)>> {
    let bytes = object.as_bytes();
    let (mut found, mut depth, mut at) = (Vec::new(), 0_usize, 0);
    let (mut name, mut begin) = ("", None);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let end = end_of_string(bytes, at + 1);
                if depth == 1 && begin.is_none() {
                    name = object.get(at + 1..end)?;
                }
                at = end;
            }
            b':' if depth == 1 && begin.is_none() => begin = Some(at + 1),
            _ => {}
        }
        if depth > deepest {
            return None;
        }
        let is_over = depth == 0 || depth == 1 && byte == &b',';
        if is_over && let Some(begin) = begin.take() {
            found.push((name, object.get(begin..at)?.trim()));
        }
        at += 1;
    }
    Some(found)
}

fn unquoted(value: &str) -> Option<&str> {
    value.strip_prefix('"')?.strip_suffix('"')
}

fn check_value(column: &ColumnShape, value: &str) -> Result<(), String> {
    if value == "null" {
        return match column.nullable {
            true => Ok(()),
            false => Err("must not be null".to_owned()),
        };
    }
    let kind = column.kind.as_str();
    let Some(member) = kind.strip_suffix("[]") else {
        return check_single(kind, value);
    };
    let members: Vec<Value> = serde_json::from_str(value).map_err(|_| "must be an array".to_owned())?;
    let members = members.iter().filter(|value| !value.is_null());
    members
        .map(Value::to_string)
        .try_for_each(|value| check_single(member, &value))
}

fn check_single(kind: &str, value: &str) -> Result<(), String> {
    let text = unquoted(value);
    let is_number = || value.starts_with(|c: char| c == '-' || c.is_ascii_digit());
    let (holds, must) = match kind {
        "uuid" => {
            let canonical = |text: &str| Uuid::try_parse(text).is_ok_and(|id| id.to_string() == text);
            (text.is_some_and(canonical), "an id in small letters with dashes")
        }
        "text" | "character varying" | "character" | "citext" | "name" => (text.is_some(), "a string"),
        "timestamp with time zone" => {
            let infinite = |text: &str| text.trim_start_matches('-') == "infinity";
            // Years of five digits and years before our era are no times of the product, and columns of services may have them.
            let is_time = |text: &str| text.parse::<Time>().is_ok() || infinite(text) || is_far_time(text);
            (text.is_some_and(is_time), "a time")
        }
        "boolean" => (value == "true" || value == "false", "true or false"),
        "smallint" => (value.parse::<i16>().is_ok(), "a number of 16 bits"),
        "integer" => (value.parse::<i32>().is_ok(), "a number of 32 bits"),
        "bigint" => (value.parse::<i64>().is_ok(), "a number of 64 bits"),
        "numeric" | "real" | "double precision" => {
            let special = text.is_some_and(|text| ["NaN", "Infinity", "-Infinity"].contains(&text));
            (is_number() || special, "a number")
        }
        "bytea" => {
            let digits = text.and_then(|text| text.strip_prefix("\\\\x"));
            let hex = |digits: &str| {
                digits.len().is_multiple_of(2) && digits.bytes().all(|b| b.is_ascii_hexdigit())
            };
            (digits.is_some_and(hex), "bytes in hexadecimal digits")
        }
        _ => (true, ""),
    };
    match holds {
        true => Ok(()),
        false => Err(format!("must be {must}")),
    }
}

fn is_far_time(text: &str) -> bool {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let plain =
        |b: u8| b.is_ascii_digit() || matches!(b, b'-' | b':' | b'T' | b'.' | b'+' | b' ' | b'B' | b'C');
    (digits > 4 || text.ends_with(" BC")) && text.len() < 64 && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TENANT: &str = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a13";
    const ID: &str = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a14";

    fn table() -> TableShape {
        let column = ColumnShape::plain;
        TableShape::notes(vec![
            column("id", "uuid", false),
            column("tenant_id", "uuid", false),
            column("at", "timestamp with time zone", true),
            column("count", "integer", false),
            column("data", "jsonb", true),
            column("tags", "text[]", true),
            column("api_token", "text", true),
        ])
    }

    fn row(id: &str, rest: &str) -> String {
        format!(r#"{{"id": "{id}", "tenant_id": "{TENANT}"{rest}}}"#)
    }

    fn problem(row: &str) -> String {
        let table = table();
        let mut check = RowCheck::new(&table, TENANT.parse().unwrap());
        let error = check.check(row).unwrap_err().to_string();
        let expected = "the archive does not fit this database: row 1 of the table notes: ";
        error.strip_prefix(expected).unwrap().to_owned()
    }

    #[test]
    fn rows_as_exports_write_them_pass() {
        let table = table();
        let mut check = RowCheck::new(&table, TENANT.parse().unwrap());
        for rest in [
            r#", "at": "2026-01-01T00:00:00.123456+00:00", "count": -5, "data": {"a": [1e400, "\u0001\n\"x\""]}, "tags": ["a", null]"#,
            r#", "at": null, "count": 0, "data": null, "tags": null"#,
            r#", "at": "10000-01-01T00:00:00+00:00", "count": 0, "data": "}{", "tags": []"#,
        ] {
            check.check(&row(ID, rest)).unwrap();
        }
        let other = check.check(&row(ID, "")).unwrap_err().to_string();
        assert!(
            other.contains("row 4 of the table notes: it has other columns"),
            "{other}"
        );
    }

    #[test]
    fn other_rows_are_refused_with_one_line() {
        let deep = format!(r#", "data": {}{}"#, "[".repeat(200), "]".repeat(200));
        for (row, expected) in [
            (r#"{"id":"#.to_owned(), "it is not a JSON object"),
            ("[1]".to_owned(), "it is not a JSON object"),
            ("null".to_owned(), "it is not a JSON object"),
            ("{}".to_owned(), "it has no tenant_id"),
            (row(ID, &deep), "it is nested too deeply"),
            (row(ID, r#", "evil": 1"#), "there is no column evil"),
            (
                row(ID, r#", "api_token": "x""#),
                "the column api_token is left out of archives",
            ),
            (row(ID, r#", "id": "x""#), "the column id is there twice"),
            (
                row(ID, r#", "count": 2147483648"#),
                "the column count must be a number of 32 bits",
            ),
            (row(ID, r#", "count": null"#), "the column count must not be null"),
            (row(ID, r#", "at": "soon""#), "the column at must be a time"),
            (row(ID, r#", "tags": {}"#), "the column tags must be an array"),
            (row(ID, r#", "tags": [1]"#), "the column tags must be a string"),
            (
                row(&ID.replace('-', ""), ""),
                "the column id must be an id in small letters with dashes",
            ),
            (
                row(&ID.to_uppercase(), ""),
                "the column id must be an id in small letters with dashes",
            ),
            (
                row(&ID.replacen('0', "\\u0030", 1), ""),
                "it has an escaped character",
            ),
            (row(ID, r#", "data": "\u0000""#), "it has an escaped character"),
            (
                row(ID, "").replace(TENANT, ID),
                "the column tenant_id has another tenant",
            ),
        ] {
            let found = problem(&row);
            assert!(found.starts_with(expected), "{row:.120}: {found}");
        }
    }
}
