use serde::Deserialize;

/// A reference from one table to another.
#[derive(Debug, Deserialize)]
pub(crate) struct ForeignKey {
    pub(crate) name: String,
    pub(crate) from: u32,
    pub(crate) columns: Vec<String>,
    pub(crate) to: u32,
    pub(crate) to_columns: Vec<String>,
    /// What happens when the other row is deleted: `a`, `r`, `c`, `n` or `d`.
    pub(crate) on_delete: char,
    /// The same for changes of its key.
    pub(crate) on_update: char,
    /// Whether the rows that were there when it was made obey it.
    pub(crate) validated: bool,
}

/// Without those that a partition has from its parent.
pub(super) const SQL: &str = "
    SELECT k.conname AS name, k.conrelid::bigint AS from, k.confrelid::bigint AS to,
           (SELECT json_agg(a.attname ORDER BY o.place) FROM unnest(k.conkey) WITH ORDINALITY o (number, place)
            JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = o.number) AS columns,
           (SELECT json_agg(a.attname ORDER BY o.place) FROM unnest(k.confkey) WITH ORDINALITY o (number, place)
            JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = o.number) AS to_columns,
           k.confdeltype AS on_delete, k.confupdtype AS on_update, k.convalidated AS validated
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN searched n ON n.oid = c.relnamespace
    WHERE k.contype = 'f' AND k.conparentid = 0 ORDER BY n.nspname, c.relname, k.conname";
