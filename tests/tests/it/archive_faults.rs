//! Archives under attack and at once: what was changed is refused before a row is written, and two imports of one file double nothing.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use tenantry_domain::archive::{ArchiveError, Put};
use tenantry_system::FileArchiveReader;
use tenantry_tenancy::archive::{import, read};
use tenantry_tenancy::operations::job::Handlers;
use tenantry_tests::World;

use crate::jobs::{expire_leases, worker};

/// A file of a tar: its name, and where its header and content are.
struct Entry {
    name: String,
    header: usize,
    content: std::ops::Range<usize>,
}

fn entries(tar: &[u8]) -> Vec<Entry> {
    let text = |bytes: &[u8]| {
        String::from_utf8_lossy(bytes)
            .trim_matches(['\0', ' '])
            .to_owned()
    };
    let (mut entries, mut at) = (Vec::new(), 0);
    while at + 512 <= tar.len() && tar[at] != 0 {
        let size = text(&tar[at + 124..at + 136]);
        let size = usize::from_str_radix(&size, 8).unwrap();
        let content = at + 512..at + 512 + size;
        entries.push(Entry {
            name: text(&tar[at..at + 100]),
            header: at,
            content: content.clone(),
        });
        at = content.start + size.div_ceil(512) * 512;
    }
    entries
}

/// Replaces a text of the manifest by one of the same length.
fn in_manifest(tar: &[u8], from: &str, to: &str) -> Vec<u8> {
    let manifest = entries(tar)
        .into_iter()
        .find(|entry| entry.name == "manifest.json")
        .unwrap();
    let text = std::str::from_utf8(&tar[manifest.content.clone()]).unwrap();
    assert!(text.contains(from) && from.len() == to.len(), "{from}: {text}");
    let mut changed = tar.to_vec();
    changed[manifest.content].copy_from_slice(text.replacen(from, to, 1).as_bytes());
    changed
}

#[actix_web::test]
async fn tampered_archive_is_refused_before_a_row_is_written() {
    let world = World::new().await;
    let file = world.write_archive("acme.tar", None).await;
    let tar = std::fs::read(&file).unwrap();
    let all = entries(&tar);
    let named = |name: &str| all.iter().find(|entry| entry.name == name).unwrap();
    let tasks = named("tables/tasks.ndjson.zst");
    let mut row = tar.clone();
    row[tasks.content.start + tasks.content.len() / 2] ^= 1;
    let schema = named("schemas/tasks.json");
    let mut other_schema = tar.clone();
    other_schema[schema.content.start + 5] ^= 1;
    let after = all
        .iter()
        .find(|entry| entry.header > tasks.header)
        .unwrap()
        .header;
    let missing = [&tar[..tasks.header], &tar[after..]].concat();
    let mut twice = tar[..after].to_vec();
    twice.extend_from_slice(&tar[tasks.header..]);
    // Its name says that it is another table's, whose file it takes the place of.
    let mut renamed = tar.clone();
    renamed[tasks.header..tasks.header + 100].copy_from_slice(&{
        let mut name = [0; 100];
        name[..23].copy_from_slice(b"tables/users.ndjson.zst");
        name
    });
    let id = world.acme.id.to_string();
    let cases = [
        ("a row", row),
        ("a schema", other_schema),
        ("a missing file", missing),
        ("a file twice", twice),
        ("a renamed file", renamed),
        ("the end", tar[..tar.len() / 2].to_vec()),
        ("the tenant", in_manifest(&tar, &id, &world.globex.id.to_string())),
        (
            "the content of a table",
            in_manifest(&tar, "\"record\"", "\"data\"  "),
        ),
        ("the algorithm", in_manifest(&tar, "\"EdDSA\"", "\"none\" ")),
        ("no archive", b"nothing".to_vec()),
        ("nothing", Vec::new()),
    ];
    let (acme, globex) = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    let tampered = world.database.exports().join("tampered.tar");
    for (what, bytes) in cases {
        std::fs::write(&tampered, bytes).unwrap();
        let imported = world.import_archive(&tampered, "other").await;
        assert!(imported.is_err(), "{what}: {imported:?}");
        let restored = world.restore_archive(&tampered).await;
        assert!(restored.is_err(), "{what}: {restored:?}");
    }
    assert_eq!(world.digest(&world.acme).await, acme);
    assert_eq!(world.digest(&world.globex).await, globex);
    let mut admin = world.database.admin().await;
    let tenants = "SELECT count(*) FROM tenants WHERE slug = 'other'";
    let tenants: i64 = sqlx::query_scalar(tenants).fetch_one(&mut admin).await.unwrap();
    assert_eq!(tenants, 0);
    // The archive itself is accepted.
    world.import_archive(&file, "other").await.unwrap();
}

#[actix_web::test]
async fn two_imports_at_once_make_one_tenant() {
    let world = World::new().await;
    let file = world.write_archive("acme.tar", None).await;
    let (one, other) = tokio::join!(
        world.import_archive(&file, "copy"),
        world.import_archive(&file, "copy")
    );
    let clear = |result: &Result<import::Imported, ArchiveError>| match result {
        Ok(_) => true,
        Err(error) => {
            let error = error.to_string();
            assert!(
                error.contains("taken") || error.contains("invalid transition") || error.contains("active"),
                "{error}"
            );
            false
        }
    };
    assert!(clear(&one) | clear(&other), "{one:?} {other:?}");
    // A rerun meets what both have written, and writes nothing.
    let again = world.import_archive(&file, "copy").await.unwrap();
    assert_eq!(again.put, Put::default());
    let mut admin = world.database.admin().await;
    for table in ["users", "projects", "tasks", "resources", "project_members"] {
        let counts = format!(
            "SELECT count(*) FILTER (WHERE t.slug = 'acme'), count(*) FILTER (WHERE t.slug = 'copy') \
             FROM {table} r JOIN tenants t ON t.id = r.tenant_id"
        );
        let counts: (i64, i64) = sqlx::query_as(sqlx::AssertSqlSafe(counts))
            .fetch_one(&mut admin)
            .await
            .unwrap();
        assert_eq!(counts.0, counts.1, "{table}");
    }
}

/// Title and version of the task of Acme.
async fn task_of(world: &World) -> (String, i64) {
    sqlx::query_as("SELECT title, version FROM tasks WHERE id = $1")
        .bind(world.acme.task.uuid())
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap()
}

#[actix_web::test]
async fn two_restorations_at_once_restore_each_row_once() {
    let world = World::new().await;
    let file = world.write_archive("acme.tar", None).await;
    let (title, version) = task_of(&world).await;
    let globex = world.digest(&world.globex).await;
    let task = world.acme.task;
    world
        .sql(format!("UPDATE tasks SET title = 'Changed' WHERE id = '{task}'"))
        .await;
    let (one, other) = tokio::join!(world.restore_archive(&file), world.restore_archive(&file));
    let restored = [one, other]
        .into_iter()
        .flatten()
        .fold(Put::default(), |all, put| Put {
            inserted: all.inserted + put.inserted,
            replaced: all.replaced + put.replaced,
        });
    assert_eq!((restored.inserted, restored.replaced), (0, 1));
    // The title of before, under a version that nobody has seen yet.
    assert_eq!(task_of(&world).await, (title, version + 1));
    assert_eq!(world.digest(&world.globex).await, globex);
}

/// A server that is killed while it writes an export leaves a part of a file and a running job. The job is taken up again when its lease is
/// over, and one archive is there, with nothing beside it.
#[actix_web::test]
async fn export_of_a_killed_server_is_taken_up_again() {
    let world = World::new().await;
    let exports = "/api/v1/tenant/exports";
    let asked = world
        .post(&world.acme.admin, exports, &serde_json::json!({}))
        .await;
    let id = asked.expect(202).json()["id"].as_str().unwrap().to_owned();
    let folder = world.database.exports().join(world.acme.id.to_string());
    // What a kill in the middle leaves: the lease, the state and a part.
    let lease = "UPDATE jobs SET state = 'running', lease_id = gen_random_uuid(), worker = 'killed', attempts = 1, \
                 lease_until = now() + interval '1 hour' WHERE kind = 'tenant.export'";
    assert_eq!(world.sql(lease).await, 1);
    world
        .sql("UPDATE tenant_exports SET status = 'running', rows_written = 5")
        .await;
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(format!("{id}.tar.part")), b"half of an archive").unwrap();
    let worker = worker(&world, Handlers::standard());
    worker.run_once().await.unwrap();
    let path = format!("{exports}/{id}");
    let export = world.get(&world.acme.admin, &path).await.expect(200).json();
    assert_eq!(export["status"], "running", "the lease is current: {export}");
    expire_leases(&world).await;
    worker.run_once().await.unwrap();
    let export = world.get(&world.acme.admin, &path).await.expect(200).json();
    assert_eq!(export["status"], "ready", "{export}");
    let files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().file_name())
        .collect();
    assert_eq!(files, [std::ffi::OsString::from(format!("{id}.tar"))]);
    let link = export["download_url"].as_str().unwrap();
    let whole = world.client.get(link).await.expect(200);
    let file = world.database.exports().join("whole.tar");
    std::fs::write(&file, &whole.bytes).unwrap();
    let mut archive = FileArchiveReader::open(&file).await.unwrap();
    read::verify(&world.app, &mut archive, &[]).await.unwrap();
}
