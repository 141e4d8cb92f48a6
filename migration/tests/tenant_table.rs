//! The SQL of a tenant table, as a reviewer should see it, and what is refused.

use tenantry_migration::{OnDelete, TenantTable};

fn notes() -> TenantTable {
    TenantTable::new("notes")
        .column("body", "text NOT NULL")
        .belongs_to("task_id", "tasks", OnDelete::Cascade)
        .may_belong_to("author_id", "users", OnDelete::Restrict)
        .column("kind", "text NOT NULL")
        .versioned()
        .soft_deleted()
        .unique("notes_kind_key", &["task_id", "kind"])
        .unique_where("notes_body_key", &["body"], "deleted_at IS NULL")
        .index_where("notes_live_idx", &["created_at", "id"], "deleted_at IS NULL")
        .check("notes_kind_check", "kind IN ('a', 'b')")
}

#[test]
fn sql_of_a_table() {
    assert_eq!(format!("{};\n", notes().up_sql().unwrap().join(";\n")), NOTES);
    assert_eq!(notes().down_sql().unwrap(), ["DROP TABLE notes"]);
}

const NOTES: &str = "\
CREATE TABLE notes (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    body text NOT NULL,
    task_id uuid NOT NULL,
    author_id uuid,
    kind text NOT NULL,
    updated_at timestamptz NOT NULL,
    version bigint NOT NULL,
    deleted_at timestamptz,
    CONSTRAINT notes_pkey PRIMARY KEY (tenant_id, id),
    CONSTRAINT notes_tenant_id_fkey FOREIGN KEY (tenant_id) REFERENCES tenants (id) ON DELETE RESTRICT,
    CONSTRAINT notes_task_id_fkey FOREIGN KEY (tenant_id, task_id) REFERENCES tasks (tenant_id, id) ON DELETE CASCADE,
    CONSTRAINT notes_author_id_fkey FOREIGN KEY (tenant_id, author_id) REFERENCES users (tenant_id, id) ON DELETE RESTRICT,
    CONSTRAINT notes_kind_key UNIQUE (tenant_id, task_id, kind),
    CONSTRAINT notes_version_check CHECK (version > 0),
    CONSTRAINT notes_kind_check CHECK (kind IN ('a', 'b'))
);
CREATE INDEX notes_created_at_idx ON notes (tenant_id, created_at, id);
CREATE UNIQUE INDEX notes_body_key ON notes (tenant_id, body) WHERE deleted_at IS NULL;
CREATE INDEX notes_live_idx ON notes (tenant_id, created_at, id) WHERE deleted_at IS NULL;
CREATE INDEX notes_author_id_idx ON notes (tenant_id, author_id);
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
ALTER TABLE notes FORCE ROW LEVEL SECURITY;
CREATE POLICY notes_select ON notes FOR SELECT TO tenantry_app USING (tenant_id = nullif(current_setting('app.current_tenant', true), '')::uuid);
CREATE POLICY notes_insert ON notes FOR INSERT TO tenantry_app WITH CHECK (tenant_id = nullif(current_setting('app.current_tenant', true), '')::uuid);
CREATE POLICY notes_update ON notes FOR UPDATE TO tenantry_app USING (tenant_id = nullif(current_setting('app.current_tenant', true), '')::uuid) WITH CHECK (tenant_id = nullif(current_setting('app.current_tenant', true), '')::uuid);
CREATE POLICY notes_delete ON notes FOR DELETE TO tenantry_app USING (tenant_id = nullif(current_setting('app.current_tenant', true), '')::uuid);
REVOKE ALL ON TABLE notes FROM PUBLIC, tenantry_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE notes TO tenantry_app;
";

#[test]
fn variants() {
    let log = TenantTable::new("log")
        .append_only()
        .generated_id()
        .up_sql()
        .unwrap();
    assert!(log[0].contains("id uuid NOT NULL DEFAULT gen_random_uuid()"));
    assert_eq!(
        log.last().unwrap(),
        "GRANT SELECT, INSERT ON TABLE log TO tenantry_app"
    );
    let parts = TenantTable::new("readings")
        .column("read_at", "timestamptz NOT NULL")
        .partitioned_by("read_at")
        .up_sql()
        .unwrap();
    assert!(parts[0].contains("CONSTRAINT readings_pkey PRIMARY KEY (tenant_id, id, read_at)"));
    assert!(parts[0].ends_with(") PARTITION BY RANGE (read_at)"));
    assert_eq!(
        parts[parts.len() - 4..],
        [
            "CREATE TABLE readings_default PARTITION OF readings DEFAULT",
            "ALTER TABLE readings_default ENABLE ROW LEVEL SECURITY",
            "ALTER TABLE readings_default FORCE ROW LEVEL SECURITY",
            "REVOKE ALL ON TABLE readings_default FROM PUBLIC, tenantry_app",
        ]
    );
    let pair = TenantTable::new("task_watchers")
        .belongs_to("task_id", "tasks", OnDelete::Cascade)
        .belongs_to("user_id", "users", OnDelete::Cascade)
        .junction("task_watchers_pair_key", &["task_id", "user_id"])
        .up_sql()
        .unwrap();
    assert!(pair[0].contains("CONSTRAINT task_watchers_pair_key UNIQUE (tenant_id, task_id, user_id)"));
    let indexes: Vec<_> = pair
        .iter()
        .filter(|sql| sql.starts_with("CREATE INDEX"))
        .collect();
    assert_eq!(
        indexes,
        [
            "CREATE INDEX task_watchers_created_at_idx ON task_watchers (tenant_id, created_at, id)",
            "CREATE INDEX task_watchers_user_id_idx ON task_watchers (tenant_id, user_id)",
        ]
    );
}

#[test]
fn what_does_not_hold_is_an_error() {
    let table = || TenantTable::new("notes").column("body", "text");
    let long = "n".repeat(41);
    for (table, problem) in [
        (TenantTable::new("Notes"), "a name is a letter"),
        (TenantTable::new("notes; DROP TABLE tasks"), "a name is a letter"),
        (TenantTable::new(&"n".repeat(42)), "a name is a letter"),
        (table().column("a b", "text"), "column a b: a name is a letter"),
        (table().column("body", "text"), "column body is there twice"),
        (
            table().column("tenant_id", "uuid"),
            "column tenant_id is there twice",
        ),
        (
            table().column("x", "uuid REFERENCES tasks"),
            "REFERENCES belongs into a method of its own",
        ),
        (
            table().column("x", "text unique"),
            "UNIQUE belongs into a method of its own",
        ),
        (
            table().column("x", "int CHECK(x > 0)"),
            "CHECK belongs into a method of its own",
        ),
        (
            table().belongs_to("x", "Tasks t", OnDelete::Restrict),
            "column x refers to Tasks t",
        ),
        (
            table().unique("notes_key", &["nothing"]),
            "notes_key: there is no column nothing",
        ),
        (table().unique("notes_key", &[]), "notes_key has no columns"),
        (
            table().index("notes_idx", &["tenant_id", "body"]),
            "notes_idx: tenant_id is there already",
        ),
        (
            table()
                .index("notes_idx", &["body"])
                .unique("notes_idx", &["body"]),
            "notes_idx is there twice",
        ),
        (
            table().index("notes_pkey", &["body"]),
            "notes_pkey is there twice",
        ),
        (
            table().partitioned_by("nothing"),
            "partitioned by nothing: there is no such column",
        ),
        (table().check("notes-check", "true"), "notes-check: not of a-z"),
        (table().index(&"i".repeat(64), &["body"]), "longer than 63 bytes"),
        (
            TenantTable::new(&long).belongs_to(&long, "tasks", OnDelete::Restrict),
            "longer than 63 bytes",
        ),
    ] {
        let error = table.up_sql().unwrap_err().to_string();
        assert!(error.contains(problem), "{error}, not {problem}");
        assert_eq!(table.down_sql().unwrap_err().to_string(), error);
    }
}
