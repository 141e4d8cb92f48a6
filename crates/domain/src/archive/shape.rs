use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A column of a table, as the catalogue of the database describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnShape {
    /// As in the catalogue of the database, without quotes.
    pub name: String,
    /// The type, in PostgreSQL's words.
    #[serde(rename = "type")]
    pub kind: String,
    /// Whether a row may have no value in it.
    pub nullable: bool,
    /// Whether the database computes it.
    pub generated: bool,
    /// Whether it has a default.
    pub default: bool,
}

/// A reference to another table of tenants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceShape {
    /// The table that is referred to.
    pub table: String,
    /// The columns that refer.
    pub columns: Vec<String>,
    /// Whether a row is deleted with the row that it refers to.
    #[serde(default)]
    pub cascades: bool,
}

/// A table that has rows of tenants, or that of the tenants themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableShape {
    /// The name, in the schema `public`.
    pub name: String,
    /// Whether it is a table of the product, rather than of a service that embeds it.
    pub own: bool,
    /// Every column, in the order of the table.
    pub columns: Vec<ColumnShape>,
    /// The columns of the primary key.
    pub key: Vec<String>,
    /// The references to other tables.
    pub refers: Vec<ReferenceShape>,
    /// Whether the runtime role may change rows.
    pub changes: bool,
}

impl TableShape {
    /// The table of the tenants.
    pub const TENANTS: &'static str = "tenants";

    /// The column of a name.
    pub fn column(&self, name: &str) -> Option<&ColumnShape> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The columns that refer to users.
    pub fn users(&self) -> impl Iterator<Item = (&ReferenceShape, &String)> {
        let to_users = self.refers.iter().filter(|reference| reference.table == "users");
        to_users.flat_map(|reference| {
            let columns = reference.columns.iter().filter(|name| *name != "tenant_id");
            columns.map(move |column| (reference, column))
        })
    }

    /// Whether rows refer to other rows of the same table.
    pub fn refers_to_itself(&self) -> bool {
        self.refers.iter().any(|reference| reference.table == self.name)
    }

    /// Whether the name can be part of the name of a file: letters, digits and `_`.
    pub fn has_plain_name(&self) -> bool {
        is_plain(&self.name)
    }

    /// The JSON Schema of a row, without the columns that are left out.
    pub fn json_schema(&self, left_out: &[String]) -> Value {
        let columns = self
            .columns
            .iter()
            .filter(|column| !left_out.contains(&column.name));
        let properties = columns
            .clone()
            .map(|column| (column.name.clone(), self.property(column)));
        let properties: serde_json::Map<_, _> = properties.collect();
        let required: Vec<_> = columns.map(|column| column.name.clone()).collect();
        json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": self.name,
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        })
    }

    fn property(&self, column: &ColumnShape) -> Value {
        let mut schema = schema_of(&column.kind);
        if let (true, Some(kind)) = (column.nullable, schema.get("type").cloned()) {
            schema["type"] = json!([kind, "null"]);
        }
        let single = |columns: &[String]| {
            columns
                .iter()
                .filter(|name| *name != "tenant_id")
                .eq([&column.name])
        };
        if let Some(reference) = self.refers.iter().find(|reference| single(&reference.columns)) {
            schema["x-references"] = json!(reference.table);
        }
        schema
    }
}

/// The JSON Schema of a type. A type that is not known has any value.
fn schema_of(kind: &str) -> Value {
    if let Some(member) = kind.strip_suffix("[]") {
        return json!({"type": "array", "items": schema_of(member)});
    }
    match kind {
        "uuid" => json!({"type": "string", "format": "uuid"}),
        "text" | "character varying" | "character" | "citext" | "name" => json!({"type": "string"}),
        "timestamp with time zone" => json!({"type": "string", "format": "date-time"}),
        "date" => json!({"type": "string", "format": "date"}),
        "boolean" => json!({"type": "boolean"}),
        "smallint" | "integer" | "bigint" => json!({"type": "integer"}),
        "numeric" | "real" | "double precision" => json!({"type": "number"}),
        "bytea" => json!({"type": "string", "pattern": "^\\\\x[0-9a-f]*$"}),
        _ => json!({}),
    }
}

pub(super) fn is_plain(name: &str) -> bool {
    let first = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    first && name.len() <= 63 && name.chars().all(plain)
}

#[cfg(test)]
impl ColumnShape {
    /// A column that is stored as it is given.
    pub(super) fn plain(name: &str, kind: &str, nullable: bool) -> Self {
        Self {
            name: name.into(),
            kind: kind.into(),
            nullable,
            generated: false,
            default: false,
        }
    }
}

#[cfg(test)]
impl TableShape {
    /// A table of a service, with these columns.
    pub(super) fn notes(columns: Vec<ColumnShape>) -> Self {
        Self {
            name: "notes".into(),
            own: false,
            columns,
            key: vec!["tenant_id".into(), "id".into()],
            refers: Vec::new(),
            changes: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schema_says_types_nulls_and_references() {
        let column = ColumnShape::plain;
        let table = TableShape {
            name: "tasks".into(),
            own: true,
            columns: vec![
                column("tenant_id", "uuid", false),
                column("assignee_id", "uuid", true),
                column("count", "bigint", false),
                column("tags", "text[]", false),
                column("secret", "bytea", false),
            ],
            key: vec!["tenant_id".into(), "id".into()],
            refers: vec![ReferenceShape {
                table: "users".into(),
                columns: vec!["tenant_id".into(), "assignee_id".into()],
                cascades: false,
            }],
            changes: true,
        };
        let schema = table.json_schema(&["secret".into()]);
        assert_eq!(
            schema["properties"],
            json!({
                "tenant_id": {"type": "string", "format": "uuid"},
                "assignee_id": {"type": ["string", "null"], "format": "uuid", "x-references": "users"},
                "count": {"type": "integer"},
                "tags": {"type": "array", "items": {"type": "string"}},
            })
        );
        assert_eq!(
            schema["required"],
            json!(["tenant_id", "assignee_id", "count", "tags"])
        );
        assert!(table.has_plain_name() && !is_plain("../etc") && !is_plain(""));
    }
}
