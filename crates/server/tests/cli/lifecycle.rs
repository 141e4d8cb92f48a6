//! Tenants that are deleted, restored and purged from the command line, by commands that are killed in the middle.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use super::{Dev, Folder, output, stderr, tenantry, url};

/// Enough for many batches.
const TASKS: i64 = 30_000;

/// Commands on the database of a demo.
pub(super) struct Terminal {
    pub(super) config: [(&'static str, String); 4],
    pub(super) admin: String,
}

impl Terminal {
    pub(super) fn new(data: &Path) -> Self {
        let key = data.join("signing-key.pem").to_str().unwrap().to_owned();
        Self {
            config: [
                ("TENANTRY_PROFILE", "development".to_owned()),
                ("TENANTRY__DATABASE__URL", url(data, "tenantry_app")),
                ("TENANTRY__DATABASE__PLATFORM_URL", url(data, "tenantry_platform")),
                ("TENANTRY__AUTH__SIGNING_KEY_FILE", key),
            ],
            admin: url(data, "postgres"),
        }
    }

    /// Runs a command to its end; what it prints.
    pub(super) fn run(&self, arguments: &[&str]) -> String {
        let output = output(arguments, &self.config);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Kills a command when it has worked on some tasks.
    pub(super) fn kill_at_work(&self, arguments: &[&str]) {
        let mut child = tenantry(arguments)
            .envs(self.config.clone())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let progress = BufReader::new(child.stderr.take().unwrap());
        let rows_of = |line: &str| {
            Some(
                line.split_once(" tasks: ")?
                    .1
                    .strip_suffix(" rows")?
                    .parse::<i64>()
                    .unwrap(),
            )
        };
        let begun = progress
            .lines()
            .any(|line| rows_of(&line.unwrap()).is_some_and(|rows| rows >= 1_000));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(begun, "{arguments:?}");
    }

    /// One text from the database, as a superuser sees it.
    pub(super) fn one(&self, sql: &str) -> String {
        use sqlx::Connection as _;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut admin = sqlx::PgConnection::connect(&self.admin).await.unwrap();
            let query = sqlx::query_scalar(sqlx::AssertSqlSafe(sql.to_owned()));
            query.fetch_one(&mut admin).await.unwrap()
        })
    }

    /// One text from the database, after statements before it.
    pub(super) fn all(&self, sql: &str) -> String {
        use sqlx::{Connection as _, Row as _};
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut admin = sqlx::PgConnection::connect(&self.admin).await.unwrap();
            let statements = sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned()));
            let rows = statements.fetch_all(&mut admin).await.unwrap();
            rows.last().unwrap().get(0)
        })
    }

    pub(super) fn of_acme(&self, sql: &str) -> String {
        let id = self.one("SELECT id::text FROM tenants WHERE slug = 'acme'");
        self.one(&sql.replace("$ACME", &format!("'{id}'")))
    }
}

pub(super) const STATES: &str = "\
SELECT concat(count(*) FILTER (WHERE deleted_at IS NULL), ' live, ', count(*) FILTER (WHERE deleted_at = timestamp '2026-01-01'), ' former, ',
              count(*), ' all') FROM tasks WHERE tenant_id = $ACME";

const OTHERS: &str = "\
SELECT md5(string_agg(t::text, '|' ORDER BY t::text)) FROM tasks t JOIN tenants n ON n.id = t.tenant_id WHERE n.slug = 'globex'";

#[test]
fn killed_deletion_restoration_and_purge_are_finished_by_a_rerun() {
    let folder = Folder::new("lifecycle");
    let dev = Dev::start(&folder.0);
    let terminal = Terminal::new(&folder.0);
    let add = format!(
        "WITH added AS (INSERT INTO tasks (tenant_id, id, created_at, updated_at, deleted_at, version, project_id, title, status, priority) \
         SELECT $ACME, gen_random_uuid(), now(), now(), CASE WHEN n % 3 = 0 THEN timestamp '2026-01-01' END, 1, p.id, 'Task ' || n, \
         'todo', 'normal' FROM generate_series(1, {TASKS}) n, (SELECT id FROM projects WHERE tenant_id = $ACME LIMIT 1) p RETURNING 1) \
         SELECT count(*)::text FROM added"
    );
    assert_eq!(terminal.of_acme(&add), TASKS.to_string());
    let (before, others) = (terminal.of_acme(STATES), terminal.one(OTHERS));

    terminal.kill_at_work(&["tenant", "delete", "acme", "--reason", "a test"]);
    assert_ne!(terminal.of_acme(STATES), before);
    // A rerun goes on. The server of the demo may have done so first.
    let rerun = output(
        &["tenant", "delete", "acme", "--reason", "a test"],
        &terminal.config,
    );
    assert!(
        rerun.status.success() || stderr(&rerun).contains("the tenant is deleted"),
        "{}",
        stderr(&rerun)
    );
    assert_eq!(
        terminal.of_acme("SELECT coalesce(row_work, 'done') FROM tenants WHERE id = $ACME"),
        "done"
    );
    terminal.kill_at_work(&["tenant", "restore", "acme", "--reason", "a test"]);
    let restored = terminal.run(&["tenant", "restore", "acme", "--reason", "a test"]);
    assert!(
        restored.contains(" acme ") && restored.contains(" active "),
        "{restored}"
    );
    assert_eq!(terminal.of_acme(STATES), before);

    let unconfirmed = output(
        &["tenant", "purge", "acme", "--reason", "a test"],
        &terminal.config,
    );
    assert!(
        stderr(&unconfirmed).contains("add --confirm"),
        "{}",
        stderr(&unconfirmed)
    );
    let active = output(
        &["tenant", "purge", "acme", "--confirm", "--reason", "a test"],
        &terminal.config,
    );
    assert!(
        stderr(&active).contains("the tenant is active"),
        "{}",
        stderr(&active)
    );

    let deleted = terminal.run(&["tenant", "delete", "acme", "--reason", "a test"]);
    assert!(deleted.contains(" deleted "), "{deleted}");
    let total: i64 = terminal
        .of_acme("SELECT count(*)::text FROM tasks WHERE tenant_id = $ACME")
        .parse()
        .unwrap();
    terminal.kill_at_work(&["tenant", "purge", "acme", "--confirm", "--reason", "a test"]);
    // It goes on whoever begins it again. The server of the demo may have done so first.
    let purged = output(
        &["tenant", "purge", "acme", "--confirm", "--reason", "a test"],
        &terminal.config,
    );
    assert!(
        purged.status.success() || stderr(&purged).contains("there is no tenant 'acme'"),
        "{}",
        stderr(&purged)
    );
    assert_eq!(terminal.one(OTHERS), others);
    assert_eq!(
        terminal.one("SELECT count(*)::text FROM tenants WHERE slug = 'acme'"),
        "0"
    );
    let tombstones = terminal.run(&["tombstones", "list"]);
    let line: serde_json::Value = serde_json::from_str(tombstones.trim()).unwrap();
    let tombstone = &line["tombstone"];
    assert_eq!(
        tombstone["row_counts"]["tasks"], total,
        "each row is counted once"
    );

    // A backup brings the tenant back, and has no tombstone.
    let file = folder.0.join("tombstones.ndjson");
    std::fs::write(&file, &tombstones).unwrap();
    let id = tombstone["id"].as_str().unwrap();
    terminal.one(&format!(
        "WITH back AS (INSERT INTO tenants (id, name, slug, plan, status, settings, created_at, updated_at, version) \
         SELECT '{id}', 'Acme', 'acme', plan, 'active', settings, created_at, updated_at, 1 FROM tenants LIMIT 1 RETURNING 1), \
         gone AS (DELETE FROM tenant_tombstones RETURNING 1) SELECT count(*)::text FROM back, gone"
    ));
    // A tombstone of a tenant that somebody would like to be gone.
    let victim = terminal.one("SELECT id::text FROM tenants WHERE slug = 'globex'");
    let mut forged = line.clone();
    forged["tombstone"]["id"] = victim.into();
    let bad = folder.0.join("bad.ndjson");
    for bad_line in [tombstones.replace("\"tasks\":", "\"tusks\":"), forged.to_string()] {
        std::fs::write(&bad, bad_line).unwrap();
        let refused = output(&["tombstones", "apply", bad.to_str().unwrap()], &terminal.config);
        assert!(
            stderr(&refused).contains("line 1: `tombstones list` of this installation has not written"),
            "{}",
            stderr(&refused)
        );
    }
    assert_eq!(
        terminal.one("SELECT count(*)::text FROM tenants WHERE slug = 'acme'"),
        "1"
    );
    let applied = terminal.run(&["tombstones", "apply", file.to_str().unwrap()]);
    assert!(applied.contains("purged 1 tenants"), "{applied}");
    assert_eq!(
        terminal.one("SELECT count(*)::text FROM tenants WHERE slug = 'acme'"),
        "0"
    );
    assert_eq!(terminal.one(OTHERS), others);
    assert_eq!(dev.stop(), Some(0));
}
