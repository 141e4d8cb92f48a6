//! What the launcher promises, against the machine's real PostgreSQL.

#![expect(
    clippy::unwrap_used,
    reason = "a test may panic, and so may the helpers at the end of this file"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::{Connection, PgConnection};
use tenantry_devdb::{Cluster, ClusterOptions, DevDbError, Durability};

/// Tells a copy of this test program to be the process whose death is watched.
const WATCHED_FOLDER: &str = "TENANTRY_DEVDB_TEST_WATCHED";

#[tokio::test]
async fn a_cold_start_answers_queries_and_stops() {
    let scratch = Scratch::new("cold");
    let cluster = start(&scratch.dir).await;
    assert!(cluster.fresh());
    assert_eq!(ask(&cluster, "SELECT 1").await, 1);
    assert_eq!(
        ask(&cluster, "SELECT current_setting('max_connections')::int").await,
        300
    );
    assert_eq!(
        ask(&cluster, "SELECT (current_setting('fsync') = 'off')::int").await,
        1
    );
    assert_private(&cluster).await;
    cluster.stop().await.unwrap();
    assert!(!is_listening(cluster.port()));
    cluster.stop().await.unwrap();
}

async fn assert_private(cluster: &Cluster) {
    assert_ne!(ps(postmaster(cluster), "uid="), "0", "PostgreSQL runs as root");
    assert_eq!(mode(&cluster.data_dir().join("superuser.password")), 0o600);
    assert_eq!(mode(&cluster.data_dir().join("pg")), 0o700);
    assert_eq!(mode(cluster.socket_dir()), 0o700);
    assert!(!format!("{cluster:?}").contains(cluster.superuser_password()));
    let wrong = cluster
        .admin_url("postgres")
        .replace(cluster.superuser_password(), "guess");
    assert!(
        PgConnection::connect(&wrong).await.is_err(),
        "any password is accepted"
    );
    // A session of its own is what keeps Ctrl-C in our terminal away from the server.
    assert_ne!(ps(postmaster(cluster), "sess="), ps(std::process::id(), "sess="));
}

#[tokio::test]
async fn a_second_start_finds_the_data_and_the_port_again() {
    let scratch = Scratch::new("again");
    let first = start(&scratch.dir).await;
    run(&first, "CREATE TABLE kept AS SELECT 7 AS it").await;
    first.stop().await.unwrap();
    let second = start(&scratch.dir).await;
    assert!(!second.fresh());
    assert_eq!(second.admin_url("postgres"), first.admin_url("postgres"));
    assert_eq!(ask(&second, "SELECT it FROM kept").await, 7);
    second.stop().await.unwrap();
    let taken = std::net::TcpListener::bind(("127.0.0.1", first.port())).unwrap();
    let third = start(&scratch.dir).await;
    assert_ne!(third.port(), taken.local_addr().unwrap().port());
    third.stop().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_started_is_said_plainly() {
    let scratch = Scratch::new("broken");
    let cluster = start(&scratch.dir).await;
    cluster.stop().await.unwrap();
    std::fs::write(
        cluster.data_dir().join("pg/postgresql.conf"),
        "no_such_setting = 1\n",
    )
    .unwrap();
    let error = scratch
        .start(Durability::Throwaway)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("no_such_setting"), "{error}");
    assert!(!error.contains('\n'), "{error}");
    std::fs::remove_file(cluster.data_dir().join("superuser.password")).unwrap();
    let error = scratch.start(Durability::Throwaway).await.unwrap_err();
    assert!(matches!(error, DevDbError::PasswordMissing { .. }), "{error}");
}

#[tokio::test]
async fn a_running_server_is_adopted() {
    let scratch = Scratch::new("adopt");
    let first = start(&scratch.dir).await;
    let before = postmaster(&first);
    let second = start(&scratch.dir).await;
    assert_eq!((second.port(), postmaster(&second)), (first.port(), before));
    assert_eq!(second.socket_dir(), first.socket_dir());
    assert_eq!(ask(&second, "SELECT 1").await, 1);
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_durable_server_is_started_again_and_lost_nothing() {
    let scratch = Scratch::new("killed");
    let first = scratch.start(Durability::Durable).await.unwrap();
    run(&first, "CREATE TABLE kept AS SELECT 7 AS it").await;
    assert_eq!(
        ask(&first, "SELECT (current_setting('fsync') = 'on')::int").await,
        1
    );
    assert_eq!(
        ask(&first, "SELECT current_setting('max_connections')::int").await,
        100
    );
    signal("-KILL", postmaster(&first));
    eventually("the kernel is done with it", || !is_listening(first.port()));
    let second = scratch.start(Durability::Durable).await.unwrap();
    assert_eq!(ask(&second, "SELECT it FROM kept").await, 7);
    second.stop().await.unwrap();
}

#[tokio::test]
async fn a_stale_pid_file_is_no_obstacle_even_when_the_pid_is_in_use() {
    let scratch = Scratch::new("stale");
    let cluster = start(&scratch.dir).await;
    let pid_file = cluster.data_dir().join("pg/postmaster.pid");
    let content = std::fs::read_to_string(&pid_file).unwrap();
    cluster.stop().await.unwrap();
    let rest = content.split_once('\n').unwrap().1;
    // This very process is alive and no server; 4194304 is above every process id; empty is a power cut.
    for stale in [
        format!("{}\n{rest}", std::process::id()),
        format!("4194304\n{rest}"),
        String::new(),
    ] {
        std::fs::write(&pid_file, &stale).unwrap();
        let again = start(&scratch.dir).await;
        assert_eq!(ask(&again, "SELECT 1").await, 1, "{stale}");
        again.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_starts_end_with_one_server() {
    let scratch = Scratch::new("race");
    let racers: Vec<_> = (0..3)
        .map(|_| tokio::spawn(scratch.start(Durability::Throwaway)))
        .collect();
    let mut clusters = Vec::new();
    for racer in racers {
        clusters.push(racer.await.unwrap().unwrap());
    }
    assert_eq!(clusters.iter().filter(|cluster| cluster.fresh()).count(), 1);
    assert!(
        clusters
            .iter()
            .all(|cluster| cluster.port() == clusters[0].port())
    );
    clusters[0].stop().await.unwrap();
}

#[tokio::test]
async fn a_half_made_cluster_is_made_anew() {
    let scratch = Scratch::new("half");
    let half = scratch.dir.join("pg.partial/base");
    std::fs::create_dir_all(&half).unwrap();
    std::fs::write(scratch.dir.join("pg.partial/PG_VERSION"), "15\n").unwrap();
    let cluster = start(&scratch.dir).await;
    assert!(cluster.fresh());
    assert_eq!(ask(&cluster, "SELECT 1").await, 1);
    assert!(!cluster.data_dir().join("pg.partial").exists());
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_long_path_with_a_space_still_works() {
    let scratch = Scratch::new("long");
    let cluster = start(&scratch.dir.join("a folder").join("x".repeat(100))).await;
    assert!(!cluster.socket_dir().starts_with(cluster.data_dir()));
    assert!(
        cluster
            .socket_dir()
            .join(format!(".s.PGSQL.{}", cluster.port()))
            .exists()
    );
    cluster.stop().await.unwrap();
    std::fs::remove_dir_all(cluster.socket_dir()).unwrap();
}

#[tokio::test]
async fn a_folder_closed_to_the_server_is_replaced_by_one_elsewhere() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let scratch = Scratch::new("closed");
    if std::fs::metadata(&scratch.dir).unwrap().uid() != 0 {
        // Only root runs the server as somebody else.
        return;
    }
    std::fs::set_permissions(&scratch.dir, std::fs::Permissions::from_mode(0o700)).unwrap();
    let asked = scratch.dir.join("data");
    let cluster = start(&asked).await;
    assert!(cluster.data_dir().starts_with("/var/tmp"), "{cluster:?}");
    let note = std::fs::read_to_string(asked.join("moved-to")).unwrap();
    assert_eq!(Path::new(note.trim()), cluster.data_dir());
    cluster.stop().await.unwrap();
    let again = start(&asked).await;
    assert!(!again.fresh());
    again.stop().await.unwrap();
    std::fs::remove_dir_all(again.data_dir()).unwrap();
}

#[test]
fn the_watchdog_cleans_up_after_a_killed_process() {
    let scratch = Scratch::new("watched");
    let dir = scratch.dir.join("cluster");
    let mut watched = Watched::spawn(&dir);
    let port = watched.wait_for_server();
    assert!(is_listening(port));
    watched.0.kill().unwrap();
    watched.0.wait().unwrap();
    eventually("the server is gone", || !is_listening(port));
    eventually("the folder is gone", || !dir.exists());
}

#[test]
fn the_watchdog_leaves_what_it_did_not_make() {
    let scratch = Scratch::new("kept");
    let foreign = scratch.dir.join("notes.txt");
    std::fs::write(&foreign, "mine").unwrap();
    let mut watched = Watched::spawn(&scratch.dir);
    let port = watched.wait_for_server();
    watched.0.kill().unwrap();
    watched.0.wait().unwrap();
    eventually("the server is gone", || !is_listening(port));
    eventually("its files are gone", || !scratch.dir.join("pg").exists());
    assert!(foreign.exists());
}

/// Not a test by itself: the process that the two tests above start and kill.
#[tokio::test]
async fn watched_process() {
    let Some(dir) = std::env::var_os(WATCHED_FOLDER).map(PathBuf::from) else {
        return;
    };
    let cluster = start(&dir).await;
    cluster.stop_when_process_ends().unwrap();
    std::fs::write(dir.with_extension("ready"), cluster.port().to_string()).unwrap();
    std::future::pending::<()>().await;
}

struct Watched(Child, PathBuf);

impl Watched {
    fn spawn(dir: &Path) -> Watched {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "watched_process"])
            .env(WATCHED_FOLDER, dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Watched(child.unwrap(), dir.with_extension("ready"))
    }

    fn wait_for_server(&mut self) -> u16 {
        let mut port = None;
        eventually("the watched process is ready", || {
            assert!(
                self.0.try_wait().unwrap().is_none(),
                "the watched process ended early"
            );
            port = std::fs::read_to_string(&self.1)
                .ok()
                .and_then(|text| text.parse().ok());
            port.is_some()
        });
        std::fs::remove_file(&self.1).unwrap();
        port.unwrap()
    }
}

/// A folder that goes at the end of a test, together with a server that a failed test left running.
struct Scratch {
    dir: PathBuf,
}

impl Scratch {
    fn new(name: &str) -> Scratch {
        let dir = std::env::temp_dir().join(format!("tenantry-devdb-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Scratch { dir }
    }

    fn start(&self, durability: Durability) -> impl Future<Output = Result<Cluster, DevDbError>> + use<> {
        Cluster::start(ClusterOptions {
            data_dir: self.dir.clone(),
            durability,
        })
    }
}

impl Drop for Scratch {
    /// Must not panic, because it also runs when a test fails.
    fn drop(&mut self) {
        let pid_file = self.dir.join("pg/postmaster.pid");
        if let Some(pid) = first_line(&pid_file) {
            signal("-QUIT", pid);
            let deadline = Instant::now() + Duration::from_secs(60);
            while pid_file.exists() && !ps(pid, "pid=").is_empty() && Instant::now() < deadline {
                // Another process ends, and tells nobody.
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

async fn start(dir: &Path) -> Cluster {
    let options = ClusterOptions {
        data_dir: dir.to_owned(),
        durability: Durability::Throwaway,
    };
    Cluster::start(options).await.unwrap()
}

async fn ask(cluster: &Cluster, question: &'static str) -> i32 {
    let mut connection = PgConnection::connect(&cluster.admin_url("postgres"))
        .await
        .unwrap();
    sqlx::query_scalar(question)
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

async fn run(cluster: &Cluster, statement: &'static str) {
    let mut connection = PgConnection::connect(&cluster.admin_url("postgres"))
        .await
        .unwrap();
    sqlx::query(statement).execute(&mut connection).await.unwrap();
}

fn postmaster(cluster: &Cluster) -> u32 {
    first_line(&cluster.data_dir().join("pg/postmaster.pid")).unwrap()
}

fn first_line(pid_file: &Path) -> Option<u32> {
    std::fs::read_to_string(pid_file)
        .ok()?
        .lines()
        .next()?
        .trim()
        .parse()
        .ok()
}

fn signal(name: &str, pid: u32) {
    Command::new("kill")
        .args([name, &pid.to_string()])
        .status()
        .unwrap();
}

fn ps(pid: u32, column: &str) -> String {
    let output = Command::new("ps")
        .args(["-p", &pid.to_string(), "-o", column])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn is_listening(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Looks again and again, because another process does the work, and gives up after half a minute.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
