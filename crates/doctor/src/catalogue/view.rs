use serde::Deserialize;

/// What a view reads.
#[derive(Debug, Deserialize)]
pub(crate) struct ViewSource {
    pub(crate) view: u32,
    pub(crate) reads: u32,
}

/// Of all schemas: a view in one that is examined may read another elsewhere.
pub(super) const SQL: &str = "
    SELECT DISTINCT r.ev_class::bigint AS view, d.refobjid::bigint AS reads
    FROM pg_rewrite r JOIN pg_class v ON v.oid = r.ev_class AND v.relkind IN ('v', 'm')
    JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
        AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> r.ev_class
    ORDER BY 1, 2";
