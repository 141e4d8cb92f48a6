use super::TableShape;
use super::id_map::each_string;

impl TableShape {
    /// Whether `version` counts the changes of a row. A restoration makes it greater than it was, and a comparison leaves it out: rows
    /// that differ in nothing else are equal.
    pub fn is_versioned(&self) -> bool {
        let column = self.column(VERSION);
        self.changes && column.is_some_and(|column| column.kind == "bigint" && !column.nullable)
    }

    /// Whether two rows of the table are equal, apart from a version.
    pub fn are_equal(&self, one: &str, other: &str) -> bool {
        one == other || self.is_versioned() && around_version(one) == around_version(other)
    }
}

const VERSION: &str = "version";

/// The text before and behind the number of the version.
fn around_version(row: &str) -> Option<(&str, &str)> {
    let mut colon = None;
    each_string(row, |text, place| {
        if place.depth == 1 && place.is_key && text == VERSION {
            colon = Some(place.start + text.len() + 1);
        }
    });
    let (before, value) = row.split_at_checked(colon?)?;
    let number = |c: char| c == ':' || c == ' ' || c.is_ascii_digit();
    Some((before, value.trim_start_matches(number)))
}

#[cfg(test)]
mod tests {
    use super::super::ColumnShape;
    use super::*;

    #[test]
    fn rows_that_differ_in_their_version_are_equal() {
        let mut table = TableShape::notes(vec![ColumnShape::plain(VERSION, "bigint", false)]);
        let row = r#"{"id": "1", "body": "\"version\": 7", "data": {"version": 3}, "version": 1, "z": 1}"#;
        let with = |from: &str, to: &str| row.replace(from, to);
        assert!(table.are_equal(row, &with("\"version\": 1,", "\"version\": 25,")));
        for (from, to) in [
            (": 7", ": 8"),
            (": 3", ": 4"),
            ("\"z\": 1", "\"z\": 2"),
            ("\"id\": \"1\"", "\"id\": \"2\""),
        ] {
            assert!(!table.are_equal(row, &with(from, to)), "{from}");
        }
        // Where rows are only added, a version is what a row is about.
        table.changes = false;
        assert!(!table.are_equal(row, &with("\"version\": 1,", "\"version\": 25,")));
        (table.changes, table.columns[0].nullable) = (true, true);
        assert!(!table.are_equal(row, &with("\"version\": 1,", "\"version\": 25,")));
    }
}
