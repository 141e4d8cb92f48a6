//! A database that `pg_dump` has saved, restored as docs/operations.md says, and served from.

use tenantry_tests::outside::postgres_program;

use super::serving::{Serving, beside};
use super::*;

/// The demo's server has the original, so the copy gets another name.
const COPY: &str = "restored";

/// The URL of the copy in place of that of the original; anything else as it is.
fn of_copy(value: String) -> String {
    match value.strip_suffix("/tenantry") {
        Some(server) if value.starts_with("postgres://") => format!("{server}/{COPY}"),
        _ => value,
    }
}

fn dump(data: &Path, arguments: &[&str]) -> Option<String> {
    let output = postgres_program("pg_dump")?
        .args(arguments)
        .arg(url(data, "postgres"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    Some(String::from_utf8(output.stdout).unwrap())
}

fn restore(data: &Path, name: &str, database_url: &str, dump: &str) -> Option<()> {
    let file = data.join(name);
    std::fs::write(&file, dump).unwrap();
    let output = postgres_program("psql")?
        .args(["--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", "--file"])
        .arg(&file)
        .arg(database_url)
        .output()
        .unwrap();
    assert!(output.status.success(), "{name}: {}", stderr(&output));
    Some(())
}

fn succeed(arguments: &[&str], config: &[(&'static str, String)]) -> String {
    let output = output(arguments, config);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{arguments:?}: {}\n{text}",
        stderr(&output)
    );
    text
}

#[test]
fn restored_dump_is_clean_and_served() {
    let folder = Folder::new("restored");
    let data = &folder.0;
    let dev = Dev::start(data);
    let _ = restored(data);
    assert_eq!(dev.stop(), Some(0));
}

/// `None` where the programs are missing, which makes the test a skipped one.
fn restored(data: &Path) -> Option<()> {
    let original = beside(data);
    // A secret under the data key of a tenant: the check of the keys has something to open.
    succeed(&["keys", "rotate", "--tenant", "acme"], &original);
    let tombstones = succeed(&["tombstones", "list"], &original);
    let backup = dump(data, &["--create", "--exclude-table-data=data_keys"])?;
    let keys = dump(
        data,
        &[
            "--data-only",
            "--inserts",
            "--on-conflict-do-nothing",
            "--table=data_keys",
        ],
    )?;
    assert!(
        backup.contains("CREATE TABLE public.data_keys") && !backup.contains("COPY public.data_keys "),
        "the dump has the table of data keys, and none of its rows"
    );
    assert!(keys.contains("INSERT INTO public.data_keys"), "{keys}");
    let renamed = [" DATABASE tenantry", "\\connect tenantry"]
        .iter()
        .fold(backup, |text, words| {
            text.replace(words, &words.replace("tenantry", COPY))
        });
    let admin = url(data, "postgres");
    let server = admin.replace("/tenantry", "/postgres");
    restore(data, "backup.sql", &server, &renamed)?;

    // Secrets need the data keys.
    let config: Vec<_> = beside(data)
        .into_iter()
        .map(|(key, value)| (key, of_copy(value)))
        .collect();
    let without = output(&["keys", "check"], &config);
    assert!(!without.status.success(), "tenants have no data keys yet");
    restore(data, "data-keys.sql", &of_copy(admin), &keys)?;

    let report = succeed(&["doctor"], &config);
    assert!(report.contains("Database restored "), "{report}");
    succeed(&["keys", "check"], &config);
    let file = data.join("tombstones.ndjson");
    std::fs::write(&file, tombstones).unwrap();
    succeed(&["tombstones", "apply", file.to_str().unwrap()], &config);
    let serving = Serving::start(&config);
    let body = "{\"tenant_slug\":\"acme\",\"email\":\"admin@acme.example\",\"password\":\"demo-password\"}";
    let (status, answer) = request(&serving.address, ("POST", "/api/v1/auth/login"), "", body);
    assert_eq!(status, 200, "{answer}");
    serving.end("TERM");
    Some(())
}
