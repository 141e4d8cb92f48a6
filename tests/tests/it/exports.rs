//! Exports of a tenant over HTTP: the job, the link, ranges, limits and the end of archives.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;

use actix_web::http::Method;
use chrono::Duration;
use serde_json::{Value, json};
use tenantry_domain::archive::{ArchiveSource as _, Manifest};
use tenantry_domain::kernel::SystemScope;
use tenantry_domain::operations::JobFilter;
use tenantry_http::HttpConfig;
use tenantry_system::FileArchiveReader;
use tenantry_tenancy::Cx;
use tenantry_tenancy::admin::operator_job::JobStep;
use tenantry_tenancy::archive::{export, read};
use tenantry_tenancy::operations::job;
use tenantry_tenancy::operations::job::{Handlers, Nothing, SystemJobHandler as _};
use tenantry_tenancy::tenant::archive_files::{self, SweepArchives};
use tenantry_tenancy::tenant::lifecycle;
use tenantry_tenancy::tenant::row_work::{self, SettleAll};
use tenantry_tests::{Lines, Options, World};

use crate::jobs::worker;
use crate::mfa::with_factor;

const EXPORTS: &str = "/api/v1/tenant/exports";

const BECAUSE: SystemScope = SystemScope::because("a test");

fn folder(world: &World) -> PathBuf {
    world.database.exports().join(world.acme.id.to_string())
}

/// Asks for an export and has a worker write it.
async fn exported(world: &World) -> Value {
    let asked = world.post(&world.acme.admin, EXPORTS, &json!({})).await;
    let asked = asked.expect(202);
    assert_eq!(asked.json()["status"], "queued");
    let path = asked.header("location").unwrap().to_owned();
    worker(world, Handlers::standard()).run_once().await.unwrap();
    let export = world.get(&world.acme.admin, &path).await.expect(200).json();
    assert_eq!(export["status"], "ready", "{export}");
    export
}

#[actix_web::test]
async fn export_is_written_by_a_job_and_downloaded_by_its_link() {
    let world = World::new().await;
    let export = exported(&world).await;
    let size = usize::try_from(export["bytes"].as_u64().unwrap()).unwrap();
    let link = export["download_url"].as_str().unwrap();
    let whole = world.client.get(link).await.expect(200);
    assert_eq!(whole.header("content-type"), Some("application/x-tar"));
    assert_eq!(
        (whole.bytes.len(), whole.header("accept-ranges")),
        (size, Some("bytes"))
    );
    let etag = whole.header("etag").unwrap().to_owned();
    let head = world.client.request(Method::HEAD, link).await.expect(200);
    assert_eq!(head.header("etag"), Some(etag.as_str()));

    // What is downloaded is an archive of this tenant alone, and says what it has left out.
    let file = folder(&world).join("downloaded.tar");
    std::fs::write(&file, &whole.bytes).unwrap();
    let mut archive = FileArchiveReader::open(&file).await.unwrap();
    read::verify(&world.app, &mut archive, &[]).await.unwrap();
    let manifest: Manifest = archive.manifest().clone();
    assert_eq!(
        (manifest.tenant.id, manifest.tenant.slug.as_str()),
        (world.acme.id, "acme")
    );
    archive.open("users").await.unwrap();
    let users = archive.next(usize::MAX).await.unwrap();
    assert!(
        !users.is_empty()
            && users
                .iter()
                .all(|user| !user.contains("password") && !user.contains("argon2"))
    );
    assert!(users.iter().all(|user| user.contains(&world.acme.id.to_string())));
    assert!(
        manifest
            .left_out
            .iter()
            .any(|table| table.table == "refresh_sessions")
    );

    // Parts.
    for (range, status, content) in [
        ("bytes=0-9", 206, &whole.bytes[..10]),
        ("bytes=10-", 206, &whole.bytes[10..]),
        ("bytes=-5", 206, &whole.bytes[size - 5..]),
        ("bytes=0-99999999999999999999", 200, &whole.bytes[..]),
        ("bytes=5-4", 200, &whole.bytes[..]),
        ("bytes=0-1,3-4", 200, &whole.bytes[..]),
        ("lines=0-1", 200, &whole.bytes[..]),
    ] {
        let part = world.client.get(link).header("Range", range).await.expect(status);
        assert_eq!(&part.bytes[..], content, "{range}");
    }
    let part = world.client.get(link).header("Range", "bytes=0-9").await;
    assert_eq!(
        part.header("content-range"),
        Some(format!("bytes 0-9/{size}").as_str())
    );
    let other = world
        .client
        .get(link)
        .header("Range", "bytes=0-9")
        .header("If-Range", "\"other\"")
        .await;
    other.expect(200);
    let same = world
        .client
        .get(link)
        .header("Range", "bytes=0-9")
        .header("If-Range", &etag)
        .await;
    same.expect(206);
    let behind = world
        .client
        .get(link)
        .header("Range", format!("bytes={size}-"))
        .await
        .expect(416);
    assert_eq!(behind.json()["code"], "range_not_satisfiable");
    assert_eq!(
        behind.header("content-range"),
        Some(format!("bytes */{size}").as_str())
    );

    let direct = format!("{EXPORTS}/{}/download", export["id"].as_str().unwrap());
    assert_eq!(
        world.get(&world.acme.admin, &direct).await.expect(200).bytes,
        whole.bytes
    );
    let actions: Vec<_> = world
        .audit(&world.acme)
        .await
        .into_iter()
        .map(|(action, _)| action)
        .collect();
    for action in [
        "tenant.export_requested",
        "tenant.exported",
        "tenant.export_downloaded",
    ] {
        assert!(actions.iter().any(|one| one == action), "{action}: {actions:?}");
    }
}

#[actix_web::test]
async fn link_is_for_one_export_and_a_bounded_time() {
    let world = World::new().await;
    let export = exported(&world).await;
    let link = export["download_url"].as_str().unwrap().to_owned();
    let globex = world.globex.id.to_string();
    for wrong in [
        link.replace(&world.acme.id.to_string(), &globex),
        link.replace("signature=", "signature=0"),
        link.replacen(export["id"].as_str().unwrap(), &globex, 1),
        format!("{link}0"),
        link.split("&signature").next().unwrap().to_owned() + "&signature=" + &"0".repeat(64),
    ] {
        let refused = world.client.get(&wrong).await;
        assert_eq!(refused.status, 404, "{wrong}: {}", refused.text());
    }
    let expires: i64 = link
        .split("expires=")
        .nth(1)
        .unwrap()
        .split('&')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let longer = link.replace(&expires.to_string(), &(expires + 3600).to_string());
    world.client.get(&longer).await.expect(404);

    // Neither another tenant nor a member reads it.
    let path = format!("{EXPORTS}/{}", export["id"].as_str().unwrap());
    for path in [path.clone(), format!("{path}/download")] {
        world.get(&world.globex.admin, &path).await.expect(404);
        world.get(&world.acme.member, &path).await.expect(403);
    }
    world
        .post(&world.acme.member, EXPORTS, &json!({}))
        .await
        .expect(403);

    world.clock.advance(Duration::minutes(16));
    world.client.get(&link).await.expect(404);
}

#[actix_web::test]
async fn one_export_is_under_way_and_a_few_are_kept() {
    let world = World::new().await;
    world
        .post(&world.acme.admin, EXPORTS, &json!({}))
        .await
        .expect(202);
    let second = world
        .post(&world.acme.admin, EXPORTS, &json!({}))
        .await
        .expect(409);
    assert_eq!(second.json()["code"], "conflict");
    // Another tenant is not concerned.
    world
        .post(&world.globex.admin, EXPORTS, &json!({}))
        .await
        .expect(202);
    let worker = worker(&world, Handlers::standard());
    worker.run_once().await.unwrap();
    for _ in 0..4 {
        world
            .post(&world.acme.admin, EXPORTS, &json!({}))
            .await
            .expect(202);
        worker.run_once().await.unwrap();
    }
    let sixth = world
        .post(&world.acme.admin, EXPORTS, &json!({}))
        .await
        .expect(409);
    assert!(sixth.text().contains("5 exports"), "{}", sixth.text());
    let listed = world.get(&world.acme.admin, EXPORTS).await.expect(200).json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 5);

    // After their time the files are gone, and there is place again.
    world.clock.advance(Duration::days(8));
    let cx = Cx::enter(&world.app, BECAUSE, world.acme.id)
        .await
        .unwrap()
        .unwrap();
    export::expire(&cx).await.unwrap();
    assert_eq!(std::fs::read_dir(folder(&world)).unwrap().count(), 0);
}

#[actix_web::test]
async fn suspended_tenant_is_exported_and_a_purge_deletes_the_archive() {
    let world = World::new().await;
    world.set_status(&world.acme, "suspended").await;
    world.outlive_the_cache();
    exported(&world).await;
    assert_eq!(std::fs::read_dir(folder(&world)).unwrap().count(), 1);
    world.purge(&world.acme).await;
    assert!(!folder(&world).exists());
}

/// A server without the folder would leave the archives there for good, since nothing is left that names them.
#[actix_web::test]
async fn purge_is_left_to_a_server_that_has_the_folder() {
    let world = World::new().await;
    exported(&world).await;
    let other = world.instance(&Options {
        without_archives: true,
        ..Options::default()
    });
    let cx = world.operator_cx();
    lifecycle::delete(&cx, world.acme.id, "a test").await.unwrap();
    let early = archive_files::require_folder(&other.app, world.acme.id).await;
    assert!(early.unwrap_err().to_string().contains("archive.directory"));
    lifecycle::purge(&cx, world.acme.id, "a test").await.unwrap();
    let refused = row_work::settle(&other.app, world.acme.id, None, &|_| {}).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("archive.directory"), "{refused}");
    let lines = Lines::default();
    {
        let _listening = lines.listen();
        for _ in 0..2 {
            SettleAll.run(&other.app, BECAUSE, Nothing {}).await.unwrap();
        }
    }
    assert_eq!(
        lines.count("a purge is left to a server that has archive.directory"),
        1
    );
    let exports = format!(
        "SELECT 1 FROM tenant_exports WHERE tenant_id = '{}'",
        world.acme.id
    );
    assert_eq!(world.sql(exports.clone()).await, 1);
    assert!(folder(&world).exists());

    SettleAll.run(&world.app, BECAUSE, Nothing {}).await.unwrap();
    assert_eq!(world.sql(exports).await, 0);
    assert!(!folder(&world).exists());
    // A tenant without exports is purged by any server.
    lifecycle::delete(&cx, world.globex.id, "a test").await.unwrap();
    lifecycle::purge(&cx, world.globex.id, "a test").await.unwrap();
    let settled = row_work::settle(&other.app, world.globex.id, None, &|_| {}).await;
    assert_eq!(settled.unwrap(), row_work::Settled::Done);
}

/// An export that was being written during the purge, by a server that was killed then, has made the folder anew.
#[actix_web::test]
async fn folder_of_a_purged_tenant_is_swept() {
    let world = World::new().await;
    world.purge(&world.acme).await;
    let exports = world.database.exports();
    let globex = exports.join(world.globex.id.to_string());
    for left in [&folder(&world), &globex] {
        std::fs::create_dir_all(left).unwrap();
        std::fs::write(left.join("one.tar.part"), "half of an archive").unwrap();
    }
    std::fs::write(exports.join("acme.tar"), "of an operator").unwrap();
    SweepArchives.run(&world.app, BECAUSE, Nothing {}).await.unwrap();
    assert!(!folder(&world).exists());
    assert!(globex.join("one.tar.part").exists());
    assert!(exports.join("acme.tar").exists());
}

async fn downloads(world: &World) -> Vec<Value> {
    let entries = world.audit(&world.acme).await.into_iter();
    let downloads = entries.filter(|(action, _)| action == "tenant.export_downloaded");
    downloads.map(|(_, row)| row).collect()
}

/// Every part is a download, not only the one that begins at the first byte. Each caller has one entry an hour.
#[actix_web::test]
async fn download_of_any_part_is_recorded_once_with_its_caller() {
    let world = World::new().await;
    let export = exported(&world).await;
    let link = export["download_url"].as_str().unwrap();
    for range in ["bytes=1-", "bytes=2-3", "bytes=0-", "bytes=-1"] {
        let part = world.client.get(link).header("Range", range);
        part.header("User-Agent", "curl/8").await.expect(206);
    }
    let entries = downloads(&world).await;
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0]["after"]["by_link"], true);
    assert_eq!(
        (&entries[0]["ip"], &entries[0]["user_agent"]),
        (&json!("203.0.113.7"), &json!("curl/8"))
    );
    let direct = format!("{EXPORTS}/{}/download", export["id"].as_str().unwrap());
    let direct = world.get(&world.acme.admin, &direct).header("Range", "bytes=1-");
    direct.await.expect(206);
    let entries = downloads(&world).await;
    assert_eq!(entries.len(), 2, "{entries:?}");
    assert_eq!(entries[1]["after"]["by_link"], false);
    assert_eq!(entries[1]["actor_id"], json!(world.acme.admin.id));
    world.clock.advance(Duration::minutes(61));
    tenantry_tenancy::audit::refusal::flush(&world.app).await;
    let entries = downloads(&world).await;
    assert_eq!(
        entries.last().unwrap()["after"]["repeated"]["count"],
        4,
        "{entries:?}"
    );
}

#[actix_web::test]
async fn link_does_not_work_from_a_network_that_the_policy_refuses() {
    let options = Options::default();
    let http = HttpConfig {
        trust_forwarded_for: true,
        ..options.http
    };
    let world = World::with(Options { http, ..options }).await;
    let export = exported(&world).await;
    let link = export["download_url"].as_str().unwrap();
    let policy = json!({"denied_networks": ["10.0.0.0/8"]});
    world
        .patch(&world.acme.admin, "/api/v1/security/policy", &policy)
        .await
        .expect(200);
    let from = |address: &str| world.client.get(link).header("X-Forwarded-For", address).send();
    from("10.1.1.1").await.problem(403, "forbidden");
    assert!(downloads(&world).await.is_empty());
    let refused = world.audit(&world.acme).await;
    let refused = refused
        .iter()
        .find(|(action, _)| action == "network.refused")
        .unwrap();
    assert_eq!(refused.1["ip"], "10.1.1.1");
    from("198.51.100.7").await.expect(200);
}

/// The end of the job is the end of the export, whoever ends it.
#[actix_web::test]
async fn cancelled_job_ends_its_export() {
    let world = World::new().await;
    let asked = world.post(&world.acme.admin, EXPORTS, &json!({})).await;
    let path = asked.expect(202).header("location").unwrap().to_owned();
    let get = async || world.get(&world.acme.admin, &path).await.expect(200).json();
    assert_eq!(get().await["status"], "queued");
    let jobs = job::list(&world.app, world.acme.id, JobFilter::default(), 10)
        .await
        .unwrap();
    let job = jobs.iter().find(|job| job.kind == "tenant.export").unwrap();
    world
        .step_job(world.acme.id, job.id.uuid(), JobStep::Cancel)
        .await
        .unwrap();
    let ended = get().await;
    assert_eq!(ended["status"], "failed");
    assert!(
        ended["failure"].as_str().unwrap().contains("cancelled"),
        "{ended}"
    );
    let failed = world.audit(&world.acme).await;
    assert_eq!(
        failed
            .iter()
            .filter(|(action, _)| action == "tenant.export_failed")
            .count(),
        1
    );
    world
        .post(&world.acme.admin, EXPORTS, &json!({}))
        .await
        .expect(202);

    // Nobody has looked: the next request ends it, too.
    let jobs = job::list(&world.app, world.acme.id, JobFilter::default(), 10)
        .await
        .unwrap();
    world
        .sql(format!(
            "UPDATE jobs SET state = 'dead', finished_at = now() WHERE id = '{}'",
            jobs[0].id
        ))
        .await;
    world
        .post(&world.acme.admin, EXPORTS, &json!({}))
        .await
        .expect(202);
}

/// What takes a recent factor to ask for takes it to fetch, too.
#[actix_web::test]
async fn archives_are_given_out_for_a_recent_factor() {
    let world = World::new().await;
    let export = exported(&world).await;
    let path = format!("{EXPORTS}/{}", export["id"].as_str().unwrap());
    let download = format!("{path}/download");
    let admin = &world.acme.admin;
    let get = async |path: &str| world.get(admin, path).await;
    get(&download).await.expect(200);
    with_factor(&world, admin).await;
    world.clock.advance(Duration::minutes(11));
    get(&download).await.problem(403, "mfa_required");
    let shown = get(&path).await.expect(200).json();
    assert_eq!(
        (&shown["status"], &shown["download_url"]),
        (&json!("ready"), &Value::Null)
    );
    let listed = get(EXPORTS).await.expect(200).json();
    assert_eq!(listed["data"][0]["download_url"], Value::Null);
}

/// A client learns that trying again does not help, and what the operator has to set. Nothing else is checked before.
#[actix_web::test]
async fn server_without_a_folder_offers_no_exports() {
    let world = World::with(Options {
        without_archives: true,
        ..Options::default()
    })
    .await;
    let admin = &world.acme.admin;
    let of_user = format!("/api/v1/users/{}/exports", world.acme.member.id);
    for path in [EXPORTS, of_user.as_str()] {
        let refused = world.post(admin, path, &json!(null)).body("").await;
        assert!(refused.header("retry-after").is_none(), "{path}");
        let refused = refused.problem(404, "exports_unavailable").json();
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("`archive.directory`"), "{detail}");
    }
    let members = world
        .post(&world.acme.member, EXPORTS, &json!(null))
        .body("")
        .await;
    members.problem(403, "forbidden");
    world.get(admin, EXPORTS).await.expect(200);
}
