//! A service that embeds Tenantry gets the same guarantees: the doctor and the schema's rules here, the sweep over
//! every operation in `isolation`, which runs over this service.

use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::ServiceConfig;
use serde_json::json;
use tenantry::Extension;
use tenantry_billing::BillingHandlers as _;
use tenantry_doctor::{Options as DoctorOptions, examine};
use tenantry_domain::flags::{Comparator, Condition, FlagDefinition, FlagRule};
use tenantry_domain::kernel::{Level, Needs as _};
use tenantry_domain::operations::MailTemplates;
use tenantry_domain::tenant::Refused;
use tenantry_http::permission::ReadTenant;
use tenantry_http::{ApiError, Ctx, Endpoint};
use tenantry_mail::CompiledTemplates;
use tenantry_tenancy::Ports;
use tenantry_tenancy::flags::flag;
use tenantry_tenancy::operations::job::Handlers;
use tenantry_tests::{Client, Lines, ManualClock, MemoryPayments, Options, Payments, Person, World};

use crate::{features, jobs};

/// The options of a world with the embedding service in it.
pub fn options() -> Options {
    Options {
        extension: notes::extension(),
        ..Options::default()
    }
}

/// A world with the embedding service in it, in which payments are taken and the tenants are customers.
pub async fn world() -> World {
    let clock = Arc::new(ManualClock::default());
    let payments = MemoryPayments::new(clock.clone());
    payments.sell_at_least(1_000);
    let world = World::with(Options {
        payments: Some(Payments(payments)),
        clock: Some(clock),
        ..options()
    });
    let world = world.await;
    work(&world).await;
    world
}

/// Does all the work that there is for a worker.
pub async fn work(world: &World) {
    let worker = jobs::worker(world, Handlers::standard().with_usage().with_billing());
    while !worker.run_once().await.unwrap().is_empty() {}
}

#[actix_web::test]
async fn its_table_is_written_and_read_in_the_transaction_of_the_crates() {
    let world = world().await;
    let path = format!("/api/v1/tasks/{}/notes", world.acme.task);
    let made = world
        .post(&world.acme.member, &path, &json!({"text": "Ours"}))
        .await
        .expect(201)
        .json();
    let list = world.get(&world.acme.viewer, &path).await.expect(200).json();
    assert_eq!(list["data"], json!([made]));
    let audited = world.audit(&world.acme).await;
    assert!(
        audited
            .iter()
            .any(|(action, row)| action == "note.created" && row["target_id"] == made["id"])
    );
    let foreign = world.get(
        &world.globex.admin,
        &format!("/api/v1/notes/{}", made["id"].as_str().unwrap()),
    );
    foreign.await.problem(404, "not_found");
    let invalid = world.post(&world.acme.member, &path, &json!({"text": ""})).await;
    assert_eq!(
        invalid.problem(422, "validation_failed").json()["errors"][0]["pointer"],
        "/text"
    );
    // What only the database knows is the caller's fault too.
    let shouted = world
        .post(&world.acme.member, &path, &json!({"text": "LOUD"}))
        .await
        .problem(422, "validation_failed")
        .json();
    assert_eq!(
        shouted["errors"],
        json!([{"pointer": "", "code": "check_violated", "detail": "breaks the rule `notes_text_is_calm`"}])
    );
}

#[actix_web::test]
async fn its_event_type_is_emitted() {
    crate::events::assert_type_of_a_service_is_emitted().await;
}

/// The text of a new key of acme's admin.
async fn key(world: &World, scopes: &[&str]) -> String {
    let body = json!({"name": "Notes", "scopes": scopes});
    let reply = world.post(&world.acme.admin, "/api/v1/api-keys", &body).await;
    reply.expect(201).json()["key"].as_str().unwrap().to_owned()
}

#[actix_web::test]
async fn its_permissions_are_had_by_role_and_by_key() {
    let world = world().await;
    let path = format!("/api/v1/tasks/{}/notes", world.acme.task);
    let note = json!({"text": "Ours"});
    world.get(&world.acme.viewer, &path).await.expect(200);
    let refused = world.post(&world.acme.viewer, &path, &note).await;
    refused.problem(403, "forbidden");
    let all = world
        .get(&world.acme.viewer, "/api/v1/permissions")
        .await
        .expect(200)
        .json();
    let own = all["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["name"].as_str().unwrap().starts_with("notes."));
    let own: Vec<_> = own.cloned().collect();
    assert_eq!(
        json!(own),
        json!([
            {"name": "notes.read", "description": "See the notes on tasks.", "least_role": "viewer", "scope": true},
            {"name": "notes.write", "description": "Write notes on tasks.", "least_role": "member", "scope": true},
        ])
    );
    for (scopes, lists, creates) in [
        (&["notes.read"] as &[_], 200, 403),
        (&["notes.write"], 403, 201),
        (&["tasks.read", "tasks.write"], 403, 403),
    ] {
        let key = key(&world, scopes).await;
        world.client.get(&path).bearer(&key).await.expect(lists);
        world.client.post(&path, &note).bearer(&key).await.expect(creates);
    }
    // A key falls with its creator, whatever its scopes are.
    let key = key(&world, &["notes.read", "notes.write"]).await;
    let demote =
        sqlx::query("UPDATE users SET role = 'viewer' WHERE id = $1").bind(world.acme.admin.id.uuid());
    demote.execute(&mut world.database.admin().await).await.unwrap();
    world.outlive_the_cache();
    world.client.get(&path).bearer(&key).await.expect(200);
    world.client.post(&path, &note).bearer(&key).await.expect(403);
}

/// Two services in one process, over one database: what one has registered is nothing to the other.
#[actix_web::test]
async fn scopes_of_a_service_that_is_not_linked_grant_nothing() {
    let world = world().await;
    let key = key(&world, &["notes.read", "tasks.read"]).await;
    let without = world.other_instance(&Options::default()).await;
    let admin = &world.acme.admin.access_token;
    let scopes = async |client: &Client| {
        let list = client
            .get("/api/v1/api-keys")
            .bearer(admin)
            .await
            .expect(200)
            .json();
        let row = list["data"][0].clone();
        (
            row["scopes"].clone(),
            format!("/api/v1/api-keys/{}", row["id"].as_str().unwrap()),
        )
    };
    let (stored, path) = scopes(&without).await;
    assert_eq!(stored, json!(["tasks.read", "notes.read"]));
    without.get("/api/v1/tasks").bearer(&key).await.expect(200);
    without.get("/api/v1/projects").bearer(&key).await.expect(403);
    // No other key gets it there.
    let body = json!({"name": "Notes", "scopes": ["notes.read"]});
    let refused = without.post("/api/v1/api-keys", &body).bearer(admin).await;
    let refused = refused.problem(422, "validation_failed").json();
    assert_eq!(refused["errors"][0]["code"], "unknown_scope");
    // A change there loses nothing, also when it sends back what it read.
    for (change, expected) in [
        (json!({"name": "Renamed"}), json!(["tasks.read", "notes.read"])),
        (
            json!({"scopes": ["notes.read", "tasks.read", "tasks.write"]}),
            json!(["tasks.read", "tasks.write", "notes.read"]),
        ),
    ] {
        let changed = without.patch(&path, &change).bearer(admin).await;
        assert_eq!(changed.expect(200).json()["scopes"], expected);
    }
    world.outlive_the_cache();
    let notes = format!("/api/v1/tasks/{}/notes", world.acme.task);
    world.client.get(&notes).bearer(&key).await.expect(200);
}

tenantry::permission! {
    /// See what no extension has registered.
    ReadForgotten = "forgotten.read" reads for tenantry_domain::kernel::Role::Viewer;
}

#[actix_web::test]
async fn a_permission_that_is_not_registered_is_refused() {
    let world = world().await;
    let cx = world.cx(&world.acme.admin).await;
    let lines = Lines::default();
    let guard = lines.listen();
    for _ in 0..3 {
        assert_eq!(cx.require(ReadForgotten::PERMISSION), Err(Refused::Forbidden));
    }
    assert_eq!(
        lines.count("forgotten.read"),
        1,
        "a fault of the program is logged once"
    );
    drop(guard);
    assert_eq!(cx.require(notes::ReadNotes::PERMISSION), Ok(()));
    let without = World::new().await;
    let cx = without.cx(&without.acme.admin).await;
    assert_eq!(cx.require(notes::ReadNotes::PERMISSION), Err(Refused::Forbidden));
}

#[actix_web::test]
async fn any_port_can_be_replaced() {
    let templates: Arc<dyn MailTemplates> = Arc::new(CompiledTemplates::new());
    let given = Arc::clone(&templates);
    let extension = notes::extension().ports(move |ports| Ports {
        mail_templates: Arc::clone(&given),
        ..ports
    });
    let world = World::with(Options {
        extension,
        ..Options::default()
    });
    let used = Arc::clone(&world.await.app.ports.mail_templates);
    assert!(Arc::ptr_eq(&used, &templates));
}

/// A flag of the code is evaluated in each tenant, admins override it, and an operator's definition replaces it.
#[actix_web::test]
async fn flags_of_the_code_are_evaluated_and_replaced() {
    let paid = Condition::attribute("tenant_slug", Comparator::In, ["acme".into()]);
    let rule = FlagRule::variant(Level::Tenant, "on").when(paid);
    let flag = FlagDefinition {
        tenant_overridable: true,
        ..FlagDefinition::boolean("note-search", "Search in notes").with_rule(rule)
    };
    let world = World::with(Options {
        extension: notes::extension().flags([flag]),
        ..Options::default()
    });
    let world = world.await;
    let is_on = async |person: &Person| {
        let cx = world.cx(person).await;
        let flags = flag::of(&cx).await.unwrap();
        flags.is_on("note-search", &flag::subject(&cx), cx.now())
    };
    assert!(is_on(&world.acme.viewer).await);
    assert!(!is_on(&world.globex.viewer).await);

    let (path, off) = ("/api/v1/features/note-search/override", json!({"variant": "off"}));
    world.put(&world.acme.admin, path, &off).await.expect(200);
    assert!(!is_on(&world.acme.viewer).await);
    world.delete(&world.acme.admin, path).await.expect(204);
    assert!(is_on(&world.acme.viewer).await);

    features::define(&world, "note-search", json!({"default_variant": "on"})).await;
    assert!(is_on(&world.globex.viewer).await);
}

#[test]
fn invalid_flags_of_the_code_refuse_the_start() {
    let flag = || FlagDefinition::boolean("note-search", "Search in notes");
    let unknown = flag().with_rule(FlagRule::variant(Level::Global, "half"));
    for (flags, problem) in [
        (vec![flag(), flag()], "two flags have this key"),
        (vec![unknown], "/rules/0"),
    ] {
        // Composing reads the signing key and the URLs before it looks at flags.
        let mut config = tenantry::Configuration {
            extension: notes::extension().flags(flags),
            ..tenantry::Configuration::default()
        };
        config.database.url = tenantry::Secret::new("postgres://tenantry_app@127.0.0.1:9/none".into());
        config.database.platform_url =
            tenantry::Secret::new("postgres://tenantry_platform@127.0.0.1:9/none".into());
        let overrides = tenantry::Overrides {
            keys: vec![tenantry_system::SigningKey::generate()],
            ..tenantry::Overrides::default()
        };
        let error = tenantry::compose(&config, overrides).err().unwrap().to_string();
        assert!(error.contains("feature flag `note-search`"), "{error}");
        assert!(error.contains(problem), "{error}");
    }
}

#[actix_web::test]
async fn routes_of_all_parts_are_served() {
    fn first(config: &mut ServiceConfig) {
        config.service(Endpoint::at("/first").get(ok));
    }
    fn second(config: &mut ServiceConfig) {
        config.service(Endpoint::at("/second").get(ok));
    }
    async fn ok(_: Ctx<ReadTenant>) -> HttpResponse {
        HttpResponse::Ok().finish()
    }
    let world = World::with(Options {
        extension: Extension::new("parts").routes(first).routes(second),
        ..Options::default()
    });
    let world = world.await;
    for path in ["/api/v1/first", "/api/v1/second"] {
        world.get(&world.acme.viewer, path).await.expect(200);
    }
}

#[test]
fn a_permission_that_is_registered_twice_refuses_the_start() {
    let settings = tenantry::Configuration {
        extension: notes::extension().permission::<notes::ReadNotes>(),
        ..tenantry::Configuration::default()
    };
    let error = tenantry::boot(&settings).err().unwrap();
    assert_eq!(
        error.to_string(),
        "this service registers the permission `notes.read` twice: give one of them another name"
    );
}

/// What only the database knows of an embedding service's own tables is the caller's fault; of ours it is a fault of ours.
#[actix_web::test]
async fn violations_of_its_own_tables_are_the_callers_fault() {
    const NOTE: &str = "INSERT INTO notes (tenant_id, id, task_id, text, created_at, stars) \
        SELECT tenant_id, gen_random_uuid(), id, $1, now(), $2::bigint FROM tasks LIMIT 1";
    let world = world().await;
    let alter = "ALTER TABLE notes ADD COLUMN stars smallint NOT NULL DEFAULT 1, ADD CONSTRAINT notes_of_one_text \
        EXCLUDE USING btree (text WITH =)";
    let mut admin = world.database.admin().await;
    sqlx::raw_sql(alter).execute(&mut admin).await.unwrap();
    let cx = world.cx(&world.acme.admin).await;
    let run = async |sql: &'static str, values: Vec<sea_orm::Value>| {
        let run = async |work: &mut tenantry_domain::store::Work| {
            let tx = tenantry_persistence::tenant_tx(work)?;
            tx.raw_sql("a test").execute(sql, values.clone()).await
        };
        cx.write(run).await
    };
    let note = async |text: &str, stars: Option<i64>| run(NOTE, vec![text.into(), stars.into()]).await;
    assert_eq!(note("once", Some(1)).await, Ok(1));
    let path = format!("/api/v1/tasks/{}/notes", world.acme.task);
    let again = world.post(&world.acme.member, &path, &json!({"text": "once"}));
    let again = again.await.problem(409, "conflict").json();
    assert_eq!(
        again["detail"],
        "Another row excludes this one: rule `notes_of_one_text`."
    );
    for (error, status, detail) in [
        (
            note("twice", Some(40_000)).await,
            422,
            "numeric value out of range",
        ),
        (note("twice", None).await, 422, "the column `stars` needs a value"),
        (note("a\0b", Some(1)).await, 422, "character not in repertoire"),
        (
            run("SELECT $1::uuid", vec!["none".into()]).await,
            422,
            "invalid text representation",
        ),
        (
            run("SELECT '2026-02-30'::date + $1::int", vec![1.into()]).await,
            422,
            "datetime field overflow",
        ),
        (note("once", Some(1)).await, 409, ""),
        (
            run("UPDATE tasks SET title = NULL WHERE $1", vec![true.into()]).await,
            500,
            "",
        ),
    ] {
        let error = ApiError::from(error.unwrap_err());
        assert_eq!(error.code().status(), status, "{error:?}");
        let errors = error.errors().iter();
        assert!(
            errors
                .map(|error| &error.detail)
                .all(|said| said.contains(detail)),
            "{error:?}"
        );
        assert_eq!(error.errors().is_empty(), status != 422, "{error:?}");
    }
}

/// A violated CHECK constraint of any other table is the caller's fault.
#[actix_web::test]
async fn own_tables_are_those_of_the_migrations() {
    let world = World::new().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace \
         AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY relname COLLATE \"C\"",
    )
    .fetch_all(&mut world.database.admin().await)
    .await
    .unwrap();
    assert_eq!(tables, *tenantry_persistence::OWN_TABLES);
}

#[actix_web::test]
async fn the_doctor_finds_nothing_in_its_database() {
    let world = world().await;
    // The cluster of tests is thrown away, and needs to outlast no crash.
    let settings = ["fsync", "full_page_writes", "synchronous_commit"];
    let options = DoctorOptions {
        allowed_objects: settings
            .map(|name| format!("setting {name} of the server"))
            .to_vec(),
        ..DoctorOptions::default()
    };
    let report = examine(&mut world.database.app().await, &options).await.unwrap();
    // Roles are the whole cluster's: other tests have some that bypass row-level security.
    let failures = report.failures().filter(|check| check.id != "ROLE009").count();
    assert_eq!(failures, 0, "{}", report.to_human());
    let without = tenantry_tests::World::new().await;
    let plain = examine(&mut without.database.app().await, &options)
        .await
        .unwrap();
    assert_eq!(
        report.tenant_tables,
        plain.tenant_tables + 1,
        "its table is one of those examined"
    );
}

#[actix_web::test]
async fn its_migrations_go_down_and_up_again_with_rows_in_them() {
    let world = world().await;
    let path = format!("/api/v1/tasks/{}/notes", world.acme.task);
    world
        .post(&world.acme.member, &path, &json!({"text": "Ours"}))
        .await
        .expect(201);
    let url = world.database.owner_url();
    let down = tenantry_migration::down_with::<notes::Migrator>(&url, Some(1))
        .await
        .unwrap();
    assert_eq!(down.len(), 1);
    let up = tenantry_migration::up_with::<notes::Migrator>(&url, None)
        .await
        .unwrap();
    assert_eq!(up, down);
    assert_eq!(
        world.get(&world.acme.viewer, &path).await.expect(200).json()["data"],
        json!([])
    );
}

const EXAMPLE: [&str; 2] = ["examples/notes/src/lib.rs", "examples/notes/src/main.rs"];

fn file(path: &str) -> String {
    std::fs::read_to_string(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Each page with the files that it shows whole.
const PAGES: [(&str, &[&str]); 2] = [
    ("README.md", &EXAMPLE),
    (
        "docs/embedding.md",
        &[
            EXAMPLE[0],
            EXAMPLE[1],
            "examples/notes/tests/more.rs",
            "examples/notes/tests/isolation.rs",
        ],
    ),
];

/// `TENANTRY_WRITE_README=1` writes them there.
#[test]
fn pages_show_the_example_whole() {
    for (page, files) in PAGES {
        let text = file(page);
        let mut expected = text.clone();
        for path in files {
            let (before, rest) = expected
                .split_once(&format!("<!-- {path} -->\n```rust,ignore\n"))
                .unwrap();
            let (_, after) = rest.split_once("\n```\n").unwrap();
            let shown = file(path);
            expected = format!("{before}<!-- {path} -->\n```rust,ignore\n{shown}```\n{after}");
        }
        if std::env::var_os("TENANTRY_WRITE_README").is_some() {
            let path = format!("{}/../{page}", env!("CARGO_MANIFEST_DIR"));
            std::fs::write(path, &expected).unwrap();
        }
        assert!(text == expected, "{page} does not show examples/notes as it is");
    }
}

/// The manifest of docs/embedding.md, for a repository outside of this one, names versions and features that this one has.
#[test]
fn manifest_of_the_page_fits_the_workspace() {
    let page = file("docs/embedding.md");
    let (_, manifest) = page.split_once("<!-- manifest -->\n```toml\n").unwrap();
    let (manifest, _) = manifest.split_once("```\n").unwrap();
    let workspace = file("Cargo.toml");
    let of = |text: &str, name: &str| {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{name} = ")))
            .unwrap()
            .to_owned();
        let version = line
            .split('"')
            .find(|part| part.starts_with(|c: char| c.is_ascii_digit()));
        version.unwrap().split('.').next().unwrap().to_owned()
    };
    for name in ["chrono", "sea-orm", "serde", "utoipa", "actix-web", "serde_json"] {
        assert_eq!(of(manifest, name), of(&workspace, name), "{name}");
    }
    for path in ["crates/tenantry", "tests"] {
        assert!(manifest.contains(&format!("\"../tenantry/{path}\"")));
        assert!(!file(&format!("{path}/Cargo.toml")).is_empty());
    }
}

/// Lines of code: neither blank nor a comment.
#[test]
fn example_has_at_most_a_hundred_lines() {
    let lines = EXAMPLE.iter().flat_map(|path| {
        let text = file(path);
        let code = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with("//"));
        code.map(str::to_owned).collect::<Vec<_>>()
    });
    let lines = lines.count();
    assert!(lines <= 100, "{lines}");
}
