//! Purge, restoration and erasure that are killed in the middle or meet one another. No server runs, so nothing but the commands works
//! on the rows.
//!
//! A command is stopped at a point that the test chooses: a row that it must change is locked, and PostgreSQL says that it waits.

use std::process::{Child, Output, Stdio};

use sqlx::{Connection as _, PgConnection};
use tokio::runtime::Runtime;

use super::lifecycle::{STATES, Terminal};
use super::serving::until;
use super::{Dev, Folder, doctor, output, stderr, tenantry};

/// One batch of rows and a half.
const TASKS: i64 = 1_500;

/// How many rows are changed in a transaction.
const BATCH: i64 = 1_000;

/// The last task that a deletion, restoration or purge reaches, which is in the second batch.
const LAST_TASK: &str = "SELECT 1 FROM tasks WHERE tenant_id = $ACME AND deleted_at IS DISTINCT FROM timestamp '2026-01-01' \
    ORDER BY id DESC LIMIT 1 FOR UPDATE";

const ACME_TASKS: &str = "SELECT count(*)::text FROM tasks WHERE tenant_id = $ACME";

const DELETE: [&str; 5] = ["tenant", "delete", "acme", "--reason", "a test"];
const RESTORE: [&str; 5] = ["tenant", "restore", "acme", "--reason", "a test"];
const PURGE: [&str; 6] = ["tenant", "purge", "acme", "--confirm", "--reason", "a test"];

/// The database of a demo whose server was killed, and commands on it.
pub(super) struct Idle {
    pub(super) terminal: Terminal,
    pub(super) config: Vec<(&'static str, String)>,
    folder: Folder,
}

impl Idle {
    pub(super) fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        // A job that it had begun would wait for the end of its lease.
        let mut dev = Dev::start_with(&folder.0, &[("TENANTRY__JOBS__ENABLED", "false")]);
        dev.signal("KILL");
        dev.child.wait().unwrap();
        drop(dev);
        let terminal = Terminal::new(&folder.0);
        let mut config = terminal.config.to_vec();
        // As long as another program may take to start on a loaded machine.
        config.push(("TENANTRY__DATABASE__LOCK_TIMEOUT_MS", "25000".to_owned()));
        let idle = Self {
            terminal,
            config,
            folder,
        };
        idle.settled();
        idle
    }

    /// Gives Acme tasks of which each third was deleted before. Returns how many it has.
    fn add_tasks(&self) -> i64 {
        let add = format!(
            "WITH added AS (INSERT INTO tasks (tenant_id, id, created_at, updated_at, deleted_at, version, project_id, title, status, priority) \
             SELECT $ACME, gen_random_uuid(), now(), now(), CASE WHEN n % 3 = 0 THEN timestamp '2026-01-01' END, 1, p.id, 'Task ' || n, \
             'todo', 'normal' FROM generate_series(1, {TASKS}) n, (SELECT id FROM projects WHERE tenant_id = $ACME LIMIT 1) p RETURNING 1) \
             SELECT count(*)::text FROM added"
        );
        assert_eq!(self.terminal.of_acme(&add), TASKS.to_string());
        self.terminal.of_acme(ACME_TASKS).parse().unwrap()
    }

    pub(super) fn run(&self, arguments: &[&str]) -> String {
        let output = output(arguments, &self.config);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    fn start(&self, arguments: &[&str]) -> Child {
        tenantry(arguments)
            .envs(self.config.iter().map(|(key, value)| (key, value)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Waits until so many transactions wait for a lock.
    pub(super) fn blocked(&self, transactions: usize) {
        let sql = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let transactions = transactions.to_string();
        until("the commands wait for a lock", || {
            self.terminal.one(sql) == transactions
        });
    }

    /// Waits until nothing is connected any more: transactions of a killed process end when PostgreSQL notices it.
    pub(super) fn settled(&self) {
        let sql = "SELECT count(*)::text FROM pg_stat_activity WHERE datname = current_database() \
                   AND backend_type = 'client backend' AND pid <> pg_backend_pid()";
        until("all connections are closed", || self.terminal.one(sql) == "0");
    }

    /// Kills a command at a row, and lets PostgreSQL end its transactions.
    fn kill_at(&self, row: &str, arguments: &[&str]) {
        let held = Held::row(&self.terminal, row);
        let mut child = self.start(arguments);
        self.blocked(1);
        child.kill().unwrap();
        child.wait().unwrap();
        held.release();
        self.settled();
    }

    /// Number of rows and checksum of each table of Globex.
    fn globex(&self) -> String {
        self.each_table(|table| {
            format!(
                "SELECT '{table} ' || count(*) || ' ' || coalesce(md5(string_agg(r::text, '|' ORDER BY r::text)), '') AS line \
                 FROM \"{table}\" r WHERE r.tenant_id = (SELECT id FROM tenants WHERE slug = 'globex')"
            )
        })
    }

    /// The tables that have a text anywhere, with how many rows do.
    fn found(&self, text: &str) -> String {
        self.each_table(|table| {
            format!(
                "SELECT '{table} ' || count(*) AS line FROM \"{table}\" r WHERE r::text LIKE '%{text}%' HAVING count(*) > 0"
            )
        })
    }

    /// The lines of a query over each table that has rows of tenants.
    fn each_table(&self, query: impl Fn(&str) -> String) -> String {
        let tables = self.terminal.one(
            "SELECT string_agg(c.relname, ',') FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' \
             WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace",
        );
        let queries: Vec<String> = tables.split(',').map(query).collect();
        assert!(queries.len() >= 40, "{tables}");
        let all = queries.join(" UNION ALL ");
        let sql = format!("SELECT coalesce(string_agg(line, E'\\n' ORDER BY line), '') FROM ({all}) lines");
        self.terminal.one(&sql)
    }

    fn is_healthy(&self) {
        let (healthy, report) = doctor(&self.folder.0, &[]);
        assert!(healthy, "{report}");
    }
}

impl Drop for Idle {
    /// Stops PostgreSQL, which outlives its killed server.
    fn drop(&mut self) {
        let data = self.folder.0.to_str().unwrap();
        let _ = tenantry(&["dev", "--check", "--data-dir", data])
            .env("TENANTRY__SERVER__PORT", "0")
            .output();
    }
}

/// A row that nothing else can change, or a table.
pub(super) struct Held {
    runtime: Runtime,
    connection: PgConnection,
}

impl Held {
    pub(super) fn row(terminal: &Terminal, sql: &str) -> Self {
        Self::by(terminal, sql, 1)
    }

    /// Rows of the table can be read and locked.
    pub(super) fn table(terminal: &Terminal, table: &str) -> Self {
        Self::by(terminal, &format!("LOCK TABLE {table} IN SHARE MODE"), 0)
    }

    fn by(terminal: &Terminal, sql: &str, rows: usize) -> Self {
        let acme = terminal.one("SELECT id::text FROM tenants WHERE slug = 'acme'");
        let sql = sql.replace("$ACME", &format!("'{acme}'"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let connection = runtime.block_on(async {
            let mut connection = PgConnection::connect(&terminal.admin).await.unwrap();
            let run = async |connection: &mut PgConnection, sql: String| {
                let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
                    .fetch_all(connection)
                    .await;
                rows.unwrap().len()
            };
            run(&mut connection, "BEGIN".to_owned()).await;
            assert_eq!(run(&mut connection, sql.clone()).await, rows, "{sql}");
            connection
        });
        Self { runtime, connection }
    }

    /// Closes the connection, which ends its transaction.
    pub(super) fn release(self) {
        self.runtime.block_on(self.connection.close()).unwrap();
    }
}

fn ended(child: Child) -> (bool, String) {
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    (status.success(), String::from_utf8_lossy(&stderr).into_owned())
}

/// The first purge is killed, two others finish it at once.
#[test]
fn killed_purge_is_finished_by_two_at_once() {
    let idle = Idle::new("purges");
    let total = idle.add_tasks();
    let acme = idle
        .terminal
        .one("SELECT id::text FROM tenants WHERE slug = 'acme'");
    let globex = idle.globex();
    idle.run(&DELETE);

    idle.kill_at(LAST_TASK, &PURGE);
    assert_eq!(idle.terminal.of_acme(ACME_TASKS), (total - BATCH).to_string());
    let restored = output(&RESTORE, &idle.config);
    let refusal = stderr(&restored);
    assert!(
        !restored.status.success() && refusal.contains("is not possible"),
        "{refusal}"
    );

    let held = Held::row(&idle.terminal, LAST_TASK);
    let purges = [idle.start(&PURGE), idle.start(&PURGE)];
    idle.blocked(2);
    held.release();
    let purges = purges.map(ended);
    assert!(purges.iter().any(|(succeeded, _)| *succeeded), "{purges:?}");
    // The slower one may find nothing left.
    for (succeeded, said) in &purges {
        assert!(*succeeded || said.contains("not found"), "{said}");
    }

    let tombstones = "SELECT concat(count(*), ' ', min(row_counts ->> 'tasks')) FROM tenant_tombstones";
    assert_eq!(
        idle.terminal.one(tombstones),
        format!("1 {total}"),
        "each row is counted once"
    );
    assert_eq!(idle.found(&acme), "");
    assert_eq!(
        idle.terminal.one("SELECT string_agg(slug, ',') FROM tenants"),
        "globex"
    );
    assert_eq!(idle.globex(), globex);
    idle.is_healthy();
}

/// A purge that meets a restoration is refused, and the restoration, which is killed meanwhile, is finished exactly.
#[test]
fn purge_during_a_killed_restoration_is_refused() {
    let idle = Idle::new("restoration");
    idle.add_tasks();
    let (before, globex) = (idle.terminal.of_acme(STATES), idle.globex());
    idle.run(&DELETE);
    let deleted = idle.terminal.of_acme(STATES);

    let held = Held::row(&idle.terminal, LAST_TASK);
    let mut restoration = idle.start(&RESTORE);
    idle.blocked(1);
    let purge = idle.start(&PURGE);
    idle.blocked(2);
    restoration.kill().unwrap();
    restoration.wait().unwrap();
    held.release();
    let (purged, refusal) = ended(purge);
    assert!(!purged && refusal.contains("is being restored"), "{refusal}");
    idle.settled();
    let half = idle.terminal.of_acme(STATES);
    assert!(half != before && half != deleted, "{half}");

    let again = output(&PURGE, &idle.config);
    assert!(stderr(&again).contains("is being restored"), "{}", stderr(&again));
    let restored = idle.run(&RESTORE);
    assert!(restored.contains(" active "), "{restored}");
    assert_eq!(idle.terminal.of_acme(STATES), before);
    assert_eq!(idle.globex(), globex);
    idle.is_healthy();
}

/// The account is anonymous and the audit log is not yet erased when the command is killed. The same command finishes it.
#[test]
fn killed_erasure_is_finished_by_the_same_command() {
    const EMAIL: &str = "member@acme.example";
    let idle = Idle::new("erasure");
    let globex = idle.globex();
    let person = idle.terminal.of_acme(&format!(
        "SELECT id::text FROM users WHERE tenant_id = $ACME AND email = '{EMAIL}'"
    ));
    let entry = format!(
        "SELECT 1 FROM audit_events WHERE tenant_id = $ACME AND target_id = '{person}' AND action = 'user.created' FOR UPDATE"
    );
    let erase = [
        "user",
        "erase",
        "--tenant",
        "acme",
        "--email",
        EMAIL,
        "--confirm",
        EMAIL,
        "--reason",
        "a test",
    ];

    idle.kill_at(&entry, &erase);
    let state = format!(
        "SELECT concat(u.full_name, ', ', e.finished_at IS NOT NULL) FROM users u JOIN erasures e ON e.user_id = u.id WHERE u.id = '{person}'"
    );
    assert_eq!(idle.terminal.one(&state), "Erased user, f");
    assert!(
        idle.found(EMAIL).contains("audit_events "),
        "{}",
        idle.found(EMAIL)
    );

    // Entries of a transaction that has not ended would be left to the next run.
    until("the erasure is finished", || {
        idle.run(&erase).contains(", finished")
    });
    assert_eq!(idle.terminal.one(&state), "Erased user, t");
    assert_eq!(idle.found(EMAIL), "");
    let recorded = "SELECT concat((SELECT count(*) FROM erasures), ' ', count(*)) FROM audit_events WHERE action = 'user.erased'";
    assert_eq!(idle.terminal.one(recorded), "1 1", "it is recorded once");
    idle.run(&["audit", "verify", "--tenant", "acme"]);
    let nobody = output(&erase, &idle.config);
    assert!(
        stderr(&nobody).contains("has no user member@acme.example, or erased them already"),
        "{}",
        stderr(&nobody)
    );
    assert_eq!(idle.globex(), globex);
    idle.is_healthy();
}
