use std::collections::HashSet;

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::TableShape;
use crate::kernel::TenantId;

/// Gives every row of an archive a new id in another tenant, the same one whenever it is asked: a second run of an import meets the rows
/// of the first.
///
/// A value is an id where the archive has a row with it, or where it is the tenant's: in columns of type `uuid`, `json` and `jsonb`.
#[derive(Debug, Clone)]
pub struct IdMap {
    from: TenantId,
    to: TenantId,
    known: HashSet<Uuid>,
}

impl IdMap {
    /// From the tenant of an archive to another.
    pub fn new(from: TenantId, to: TenantId) -> Self {
        Self {
            from,
            to,
            known: HashSet::new(),
        }
    }

    /// Leads to another tenant from here on.
    #[must_use]
    pub fn to(self, tenant: TenantId) -> Self {
        Self { to: tenant, ..self }
    }

    /// Learns the `id` of a row.
    pub fn learn(&mut self, row: &str) {
        let known = &mut self.known;
        each_string(row, |text, place| {
            if place.depth == 1 && !place.is_key && place.column == "id" {
                known.extend(id(text));
            }
        });
    }

    /// The new id of an id; itself where the archive has no such row.
    pub fn map(&self, old: Uuid) -> Uuid {
        if old == self.from.uuid() {
            return self.to.uuid();
        }
        if !self.known.contains(&old) {
            return old;
        }
        let hash = Sha256::new_with_prefix(self.to.uuid().as_bytes())
            .chain_update(old.as_bytes())
            .finalize();
        let mut bytes = *old.as_bytes();
        // The time stays, so that rows are near each other in indexes as before.
        bytes[6..].copy_from_slice(&hash[..10]);
        uuid::Builder::from_random_bytes(bytes)
            .with_version(uuid::Version::SortRand)
            .into_uuid()
    }

    /// A row with the new ids. Nothing else of it changes, to the byte.
    pub fn row(&self, row: &str, table: &TableShape) -> String {
        let mut mapped = String::with_capacity(row.len());
        let mut copied = 0;
        each_string(row, |text, place| {
            let holds_ids = |kind: &str| matches!(kind, "uuid" | "uuid[]" | "json" | "jsonb" | "jsonb[]");
            let column = table.column(place.column);
            if place.depth == 1 && place.is_key || !column.is_some_and(|column| holds_ids(&column.kind)) {
                return;
            }
            let Some(old) = id(text) else { return };
            let new = self.map(old);
            if new != old {
                mapped.push_str(&row[copied..place.start]);
                mapped.push_str(&new.to_string());
                copied = place.start + text.len();
            }
        });
        mapped.push_str(&row[copied..]);
        mapped
    }
}

/// The `id` of a row; empty where it has none.
pub fn row_id(row: &str) -> &str {
    let mut found = "";
    each_string(row, |text, place| {
        if place.depth == 1 && !place.is_key && place.column == "id" {
            found = &row[place.start..place.start + text.len()];
        }
    });
    found
}

/// The names of the members of a row, in their order.
pub fn row_columns(row: &str) -> Vec<String> {
    let mut columns = Vec::new();
    each_string(row, |text, place| {
        if place.depth == 1 && place.is_key {
            columns.push(text.to_owned());
        }
    });
    columns
}

fn id(text: &str) -> Option<Uuid> {
    (text.len() == 36).then(|| Uuid::try_parse(text).ok()).flatten()
}

/// Where a string of a row is.
pub(super) struct Place<'a> {
    /// Where its text begins, behind the quote.
    pub(super) start: usize,
    /// How many objects and arrays are around it.
    pub(super) depth: usize,
    /// Whether it is the name of a member.
    pub(super) is_key: bool,
    /// The name of the outermost member around it.
    pub(super) column: &'a str,
}

/// Visits each string of a JSON object, keys included, as it is written.
pub(super) fn each_string(row: &str, mut visit: impl FnMut(&str, &Place<'_>)) {
    let bytes = row.as_bytes();
    let (mut at, mut depth, mut column) = (0, 0_usize, "");
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => {
                let start = at + 1;
                let end = end_of_string(bytes, start);
                let text = &row[start..end];
                let behind = bytes[(end + 1).min(bytes.len())..]
                    .iter()
                    .find(|byte| !byte.is_ascii_whitespace());
                let is_key = behind == Some(&b':');
                if is_key && depth == 1 {
                    column = text;
                }
                let place = Place {
                    start,
                    depth,
                    is_key,
                    column,
                };
                visit(text, &place);
                at = end;
            }
            _ => {}
        }
        at += 1;
    }
}

/// Where the closing quote of a string is.
pub(super) fn end_of_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::super::ColumnShape;
    use super::*;

    fn table(columns: &[(&str, &str)]) -> TableShape {
        let column = |(name, kind): &(&str, &str)| ColumnShape::plain(name, kind, true);
        TableShape::notes(columns.iter().map(column).collect())
    }

    const OLD: &str = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11";
    const OTHER: &str = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a12";
    const FROM: &str = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a13";
    const TO: &str = "0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a14";

    /// Ids of rows are replaced in columns that hold ids and JSON, keys of objects included; texts, numbers and ids of other rows stay.
    #[test]
    fn ids_are_replaced_where_the_schema_has_ids() {
        let shape = table(&[
            ("id", "uuid"),
            ("tenant_id", "uuid"),
            ("body", "text"),
            ("other", "uuid"),
            ("data", "jsonb"),
        ]);
        let mut map = IdMap::new(FROM.parse().unwrap(), TO.parse().unwrap());
        let row = format!(
            r#"{{"id": "{OLD}", "tenant_id": "{FROM}", "body": "{OLD}", "other": "{OTHER}", "data": {{"{OLD}": ["{OLD}", "\"{OLD}\"", 1.10000000000000000001], "id": "{OTHER}"}}}}"#
        );
        map.learn(&row);
        let new = map.map(OLD.parse().unwrap());
        assert_ne!(new.to_string(), OLD);
        assert_eq!((new.get_version_num(), &new.to_string()[..13]), (7, &OLD[..13]));
        assert_eq!(map.map(OTHER.parse().unwrap()).to_string(), OTHER);
        let expected = format!(
            r#"{{"id": "{new}", "tenant_id": "{TO}", "body": "{OLD}", "other": "{OTHER}", "data": {{"{new}": ["{new}", "\"{OLD}\"", 1.10000000000000000001], "id": "{OTHER}"}}}}"#
        );
        assert_eq!(map.row(&row, &shape), expected);
    }

    #[test]
    fn what_is_no_json_is_left_as_it_is() {
        let map = IdMap::new(FROM.parse().unwrap(), TO.parse().unwrap());
        for text in ["", "\"", "{\"", "{\"\\", "}{]", "\u{1F600}\"\u{1F600}"] {
            assert_eq!(map.row(text, &table(&[("id", "uuid")])), text);
        }
    }
}
