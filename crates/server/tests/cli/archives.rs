//! Archives from the command line: export, verify, import as a new tenant, compare and restore.

use std::path::Path;

use super::lifecycle::Terminal;
use super::{Dev, Folder, output, stderr};

/// Enough for many batches.
const TASKS: i64 = 30_000;

/// A table of a service that embeds the product: JSON with ids of rows, a reference to itself, and a secret.
const NOTES: &str = "\
SET ROLE tenantry_owner;
CREATE TABLE notes (tenant_id uuid NOT NULL REFERENCES tenants (id), id uuid NOT NULL, created_at timestamptz NOT NULL, parent_id uuid,
    body text NOT NULL, data jsonb, amount numeric, api_token text, PRIMARY KEY (tenant_id, id),
    CONSTRAINT notes_parent_id_fkey FOREIGN KEY (tenant_id, parent_id) REFERENCES notes (tenant_id, id));
ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
ALTER TABLE notes FORCE ROW LEVEL SECURITY;
CREATE POLICY notes_all ON notes TO tenantry_app USING (tenant_id = nullif(current_setting('app.current_tenant', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO tenantry_app;
RESET ROLE;
INSERT INTO notes SELECT t.id, gen_random_uuid(), now(), NULL, 'Note ' || n || E' with \\n lines and \"quotes\"', NULL, 0.1 + n, 'secret'
  FROM tenants t, generate_series(1, 20) n WHERE t.slug = 'acme';
UPDATE notes o SET parent_id = (SELECT min(p.id::text)::uuid FROM notes p WHERE p.tenant_id = o.tenant_id AND p.id <> o.id),
    data = jsonb_build_object('user', (SELECT u.id FROM users u WHERE u.tenant_id = o.tenant_id LIMIT 1), 'other', gen_random_uuid(),
                              'exact', 12345678901234567890.123456789::numeric);
SELECT 'done'";

const OTHERS: &str = "\
SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM tasks t JOIN tenants n ON n.id = t.tenant_id WHERE n.slug = 'globex'";

fn archive(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

/// The lines of tables that an import writes: name, rows and bytes.
fn data_of(verified: &str) -> Vec<&str> {
    verified.lines().filter(|line| line.contains(" data ")).collect()
}

fn add_tasks(terminal: &Terminal) {
    let add = format!(
        "WITH added AS (INSERT INTO tasks (tenant_id, id, created_at, updated_at, deleted_at, version, project_id, title, status, priority) \
         SELECT $ACME, gen_random_uuid(), now(), now(), CASE WHEN n % 3 = 0 THEN timestamp '2026-01-01' END, 1, p.id, 'Task ' || n, \
         'todo', 'normal' FROM generate_series(1, {TASKS}) n, (SELECT id FROM projects WHERE tenant_id = $ACME LIMIT 1) p RETURNING 1) \
         SELECT count(*)::text FROM added"
    );
    assert_eq!(terminal.of_acme(&add), TASKS.to_string());
}

#[test]
fn archive_is_imported_as_a_new_tenant_although_it_is_killed() {
    let folder = Folder::new("archives");
    let _dev = Dev::start(&folder.0);
    let terminal = Terminal::new(&folder.0);
    add_tasks(&terminal);
    assert_eq!(terminal.all(NOTES), "done");
    let others = terminal.one(OTHERS);
    let file = archive(&folder.0, "acme.tar");

    let exported = terminal.run(&["tenant", "export", "acme", "--out", &file]);
    assert!(exported.contains(" rows of "), "{exported}");
    let verified = terminal.run(&["export", "verify", &file]);
    assert!(
        verified.contains("ok: acme (") && verified.contains("signed by this installation"),
        "{verified}"
    );
    assert!(verified.contains("audit_events record "), "{verified}");
    assert!(!verified.contains("refresh_sessions"), "{verified}");

    // It is killed in the middle, and nobody can use the half of it.
    let import = ["tenant", "import", &file, "--as-new", "acme-copy"];
    terminal.kill_at_work(&import);
    let status = "SELECT status FROM tenants WHERE slug = 'acme-copy'";
    assert_eq!(terminal.one(status), "provisioning");
    let imported = terminal.run(&import);
    assert!(imported.contains(" acme-copy: "), "{imported}");
    assert_eq!(terminal.one(status), "active");
    // A third run writes nothing.
    let again = terminal.run(&import);
    assert!(again.contains(" acme-copy: 0 rows imported"), "{again}");

    // An export of the import has the same rows to the byte, but for ids, which are as long.
    let copy = archive(&folder.0, "copy.tar");
    terminal.run(&["tenant", "export", "acme-copy", "--out", &copy]);
    let copied = terminal.run(&["export", "verify", &copy]);
    assert_eq!(data_of(&copied), data_of(&verified));
    assert!(data_of(&copied).len() >= 10, "{copied}");
    let ids = "SELECT count(*)::text FROM tasks a JOIN tasks b USING (id) WHERE a.tenant_id <> b.tenant_id";
    assert_eq!(terminal.one(ids), "0");
    // Ids in JSON lead to the copied rows, other values stay as they are, and secrets are not there.
    let notes = "SELECT concat(count(*) FILTER (WHERE u.id IS NOT NULL), ' ', count(*) FILTER (WHERE n.data ->> 'other' = o.data ->> 'other'), ' ', \
                 count(*) FILTER (WHERE n.data -> 'exact' = '12345678901234567890.123456789'::jsonb), ' ', count(n.api_token), ' ', count(n.parent_id)) \
                 FROM notes n JOIN tenants t ON t.id = n.tenant_id AND t.slug = 'acme-copy' \
                 JOIN notes o ON o.body = n.body AND o.tenant_id <> n.tenant_id \
                 LEFT JOIN users u ON u.tenant_id = n.tenant_id AND u.id = (n.data ->> 'user')::uuid";
    assert_eq!(terminal.one(notes), "20 20 20 0 20");
    let passwords = "SELECT count(*)::text FROM users a JOIN users b USING (password_hash) WHERE a.tenant_id <> b.tenant_id";
    assert_eq!(terminal.one(passwords), "0");
    assert_eq!(terminal.one(OTHERS), others);

    let taken = output(
        &["tenant", "import", &file, "--as-new", "globex"],
        &terminal.config,
    );
    assert!(
        stderr(&taken).contains("the slug 'globex' is taken"),
        "{}",
        stderr(&taken)
    );
}

#[test]
fn archive_restores_what_is_missing_or_differs() {
    let folder = Folder::new("restoring");
    let _dev = Dev::start(&folder.0);
    let terminal = Terminal::new(&folder.0);
    add_tasks(&terminal);
    let others = terminal.one(OTHERS);
    let file = archive(&folder.0, "acme.tar");
    terminal.run(&["tenant", "export", "acme", "--out", &file]);
    let same = terminal.run(&["tenant", "diff", &file]);
    assert!(
        same.lines()
            .all(|line| line.contains(", 0 missing, 0 different, 0 only in the tenant")),
        "{same}"
    );

    let harm = "WITH gone AS (DELETE FROM tasks WHERE tenant_id = $ACME AND title LIKE 'Task 1%' RETURNING 1), \
                named AS (UPDATE tasks SET title = 'Changed' WHERE tenant_id = $ACME AND title LIKE 'Task 2%' RETURNING 1), \
                new AS (INSERT INTO tasks (tenant_id, id, created_at, updated_at, version, project_id, title, status, priority) \
                  SELECT $ACME, gen_random_uuid(), now(), now(), 1, p.id, 'Newer', 'todo', 'normal' \
                  FROM (SELECT id FROM projects WHERE tenant_id = $ACME LIMIT 1) p RETURNING 1) \
                SELECT concat((SELECT count(*) FROM gone), ' missing, ', (SELECT count(*) FROM named), ' different, ', \
                  (SELECT count(*) FROM new), ' only in the tenant')";
    let harm = terminal.of_acme(harm);
    let shown = terminal.run(&["tenant", "import", &file, "--restore"]);
    assert!(
        shown.contains(&harm) && shown.contains("add --yes"),
        "{harm}: {shown}"
    );
    assert!(terminal.run(&["tenant", "diff", &file]).contains(&harm));

    let restore = ["tenant", "import", &file, "--restore", "--yes"];
    terminal.kill_at_work(&restore);
    terminal.run(&restore);
    let restored = terminal.run(&["tenant", "diff", &file]);
    assert!(
        restored.contains(" 0 missing, 0 different, 1 only in the tenant"),
        "{restored}"
    );
    assert!(terminal.run(&restore).contains("nothing is to be restored"));
    assert_eq!(terminal.one(OTHERS), others);

    // What was changed in the file is noticed before anything is written.
    let mut bytes = std::fs::read(&file).unwrap();
    let name = b"tables/tasks.ndjson.zst";
    let at = bytes
        .windows(name.len())
        .position(|window| window == name)
        .unwrap();
    bytes[at + 512 + 100] ^= 1;
    let tampered = archive(&folder.0, "tampered.tar");
    std::fs::write(&tampered, bytes).unwrap();
    for arguments in [
        &["export", "verify", &tampered][..],
        &["tenant", "import", &tampered, "--as-new", "other"],
        &["tenant", "import", &tampered, "--restore", "--yes"],
        &["tenant", "diff", &tampered],
    ] {
        let refused = output(arguments, &terminal.config);
        assert!(
            !refused.status.success() && stderr(&refused).contains("tables/tasks.ndjson.zst: "),
            "{}",
            stderr(&refused)
        );
    }
    assert_eq!(
        terminal.one("SELECT count(*)::text FROM tenants WHERE slug = 'other'"),
        "0"
    );

    // Another installation, with another signing key, neither restores it nor imports it unasked.
    let key = archive(&folder.0, "other-key.pem");
    let pem = tenantry_system::SigningKey::generate().to_pem();
    std::fs::write(&key, pem).unwrap();
    let mut foreign = terminal.config.clone();
    foreign[3].1 = key;
    let refused = output(&["tenant", "import", &file, "--as-new", "other"], &foreign);
    let refusal = stderr(&refused);
    assert!(refusal.contains("signed by another installation"), "{refusal}");
    let public = refusal.split("public key ").nth(1).unwrap()[..64].to_owned();
    let refused = output(
        &[
            "tenant",
            "import",
            &file,
            "--restore",
            "--yes",
            "--trust-key",
            &public,
        ],
        &foreign,
    );
    assert!(
        stderr(&refused).contains("only an archive of this installation"),
        "{}",
        stderr(&refused)
    );
    let accepted = output(
        &[
            "tenant",
            "import",
            &file,
            "--as-new",
            "other",
            "--trust-key",
            &public,
        ],
        &foreign,
    );
    assert!(accepted.status.success(), "{}", stderr(&accepted));
}

/// The walk of docs/archives.md: the backup is started beside, the tenant is exported there and restored here.
#[test]
fn one_tenant_is_restored_out_of_a_physical_backup() {
    let (folder, backup) = (Folder::new("running"), Folder::new("backup"));
    assert_eq!(Dev::start(&folder.0).stop(), Some(0));
    let _ = std::fs::remove_dir_all(&backup.0);
    // Owners of files too: PostgreSQL refuses a folder of another user.
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(&folder.0)
        .arg(&backup.0)
        .status();
    assert!(copied.unwrap().success());

    let _here = Dev::start(&folder.0);
    let here = Terminal::new(&folder.0);
    let (tasks, others) = (
        "SELECT count(*)::text FROM tasks WHERE tenant_id = $ACME",
        here.one(OTHERS),
    );
    let before = here.of_acme(tasks);
    assert_ne!(here.of_acme("WITH gone AS (DELETE FROM tasks WHERE tenant_id = $ACME RETURNING 1) SELECT count(*)::text FROM gone"), "0");
    assert_eq!(here.of_acme(tasks), "0");

    let beside = Dev::start(&backup.0);
    let file = archive(&folder.0, "acme.tar");
    Terminal::new(&backup.0).run(&["tenant", "export", "acme", "--out", &file]);
    beside.stop();
    let shown = here.run(&["tenant", "import", &file, "--restore"]);
    assert!(
        shown.contains(&format!("tasks: 0 equal, {before} missing")),
        "{shown}"
    );
    here.run(&["tenant", "import", &file, "--restore", "--yes"]);
    assert_eq!(here.of_acme(tasks), before);
    assert_eq!(here.one(OTHERS), others);
}
