//! The settings of a tenant: what holds, who sees it, what is let in, and how it came about.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tenantry_domain::customization::{Definition, Kind, Setting, SettingSheet};
use tenantry_domain::kernel::{Seal as _, StoreError};
use tenantry_system::SigningKey;
use tenantry_tenancy::customization::product_settings::{SMTP_PASSWORD, TASKS_DEFAULT_PRIORITY};
use tenantry_tenancy::customization::setting::{self, Resealed, SettingError, SettingReason};
use tenantry_tenancy::identity::reseal;
use tenantry_tests::{KnownHosts, Options, Person, Reply, World, operator_cx};

const SETTINGS: &str = "/api/v1/tenant/settings";
const DIGEST: &str = "notifications.email_digest";
const PASSWORD: &str = "integrations.smtp_password";

async fn patch(world: &World, who: &Person, body: Value) -> Reply {
    world.patch(who, SETTINGS, &body).await
}

async fn get(world: &World, who: &Person, path: &str) -> Value {
    world
        .get(who, &format!("{SETTINGS}{path}"))
        .await
        .expect(200)
        .json()
}

async fn roll_back(world: &World, version: i64) -> Reply {
    let path = format!("{SETTINGS}/rollback");
    world
        .post(&world.acme.admin, &path, &json!({"version": version}))
        .await
}

#[track_caller]
fn assert_errors(reply: Reply, code: &str, expected: &[(&str, &str)]) {
    let problem = reply.problem(422, code).json();
    let found: Vec<_> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| {
            (
                error["pointer"].as_str().unwrap(),
                error["code"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(found, expected, "{problem}");
}

#[actix_web::test]
async fn the_most_specific_level_holds_and_null_goes_back() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let before = get(&world, admin, "").await;
    assert_eq!(before["version"], 0);
    assert_eq!(
        before["settings"][DIGEST],
        json!({
            "value": "weekly", "origin": "default", "editable": true, "levels": {"default": "weekly"},
        })
    );
    // The plan of the world's tenants is pro.
    assert_eq!(
        before["settings"]["retention.audit_days"],
        json!({
            "value": 730, "origin": "plan", "editable": false, "levels": {"default": 365, "plan": 730},
        })
    );
    let changed = patch(
        &world,
        admin,
        json!({DIGEST: "daily", "appearance.highlight_color": "#FFF"}),
    )
    .await
    .expect(200);
    assert!(changed.header("etag").unwrap().starts_with("\"1."));
    let changed = changed.json();
    assert_eq!(changed["warnings"], json!([]));
    assert_eq!(
        changed["settings"][DIGEST],
        json!({
            "value": "daily", "origin": "tenant", "editable": true, "levels": {"default": "weekly", "tenant": "daily"},
        })
    );
    assert_eq!(
        changed["settings"]["appearance.highlight_color"]["value"], "#ffffff",
        "in its normal form"
    );
    assert_eq!(
        get(&world, &world.globex.admin, "").await["settings"],
        before["settings"],
        "another tenant's are its own"
    );

    let back = patch(&world, admin, json!({DIGEST: null}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&back["settings"][DIGEST], &back["version"]),
        (&before["settings"][DIGEST], &json!(2))
    );
    let same = patch(&world, admin, json!({DIGEST: null}))
        .await
        .expect(200)
        .json();
    assert_eq!(same["version"], 2, "a change that changes nothing is none");
}

#[actix_web::test]
async fn viewers_see_what_is_for_clients_and_admins_see_all_but_secrets() {
    let world = World::new().await;
    patch(&world, &world.acme.admin, json!({PASSWORD: "hunter2hunter2"}))
        .await
        .expect(200);
    let all = get(&world, &world.acme.admin, "").await;
    assert_eq!(all["settings"][PASSWORD], json!({"is_set": true}));
    assert_eq!(
        get(&world, &world.globex.admin, "").await["settings"][PASSWORD],
        json!({"is_set": false})
    );
    for person in [&world.acme.member, &world.acme.viewer] {
        let seen = get(&world, person, "").await;
        let seen = seen["settings"].as_object().unwrap();
        assert!(seen.contains_key(DIGEST) && seen.len() < all["settings"].as_object().unwrap().len());
        for hidden in [PASSWORD, "webhook.default_url", "retention.audit_days"] {
            assert!(!seen.contains_key(hidden), "{hidden}");
        }
        let schema = get(&world, person, "/schema").await;
        assert_eq!(schema["properties"].as_object().unwrap().len(), seen.len());
        patch(&world, person, json!({DIGEST: "off"}))
            .await
            .problem(403, "forbidden");
        for path in ["/versions", "/versions/1", "/versions/1/diff/1"] {
            world
                .get(person, &format!("{SETTINGS}{path}"))
                .await
                .problem(403, "forbidden");
        }
    }
}

#[actix_web::test]
async fn everything_that_is_wrong_is_named_and_nothing_of_it_is_stored() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    patch(
        &world,
        admin,
        json!({"support.url": "https://help.acme.example/"}),
    )
    .await
    .expect(200);
    let before = world.digest(&world.acme).await;
    let wrong = json!({
        DIGEST: "hourly", "notifications.digest_hour": 24, "tasks.reference_prefix": "a b",
        "appearance.highlight_color": "red", "appearance.theme": 7, "support.url": "http://acme.example",
        "webhook.default_url": "https://2130706433/hook", PASSWORD: 7, "retention.audit_days": 3650,
        "security.session_idle_minutes": 1.5, "security.allowed_email_domains": ["a.example", "no domain"],
        "appearance.navigation": [
            {"label": "", "url": "https://a.example"}, {"url": "https://[::1]/", "more": true}, "x",
        ],
        "a/b~c": 1,
    });
    assert_errors(
        patch(&world, admin, wrong).await,
        "validation_failed",
        &[
            ("/a~1b~0c", "unknown_field"),
            ("/appearance.highlight_color", "invalid_colour"),
            ("/appearance.navigation/0/label", "invalid_text"),
            ("/appearance.navigation/1/more", "unknown_field"),
            ("/appearance.navigation/1/label", "required"),
            ("/appearance.navigation/1/url", "internal_address"),
            ("/appearance.navigation/2", "invalid_type"),
            ("/appearance.theme", "invalid_value"),
            ("/integrations.smtp_password", "invalid_type"),
            ("/notifications.digest_hour", "out_of_range"),
            ("/notifications.email_digest", "invalid_value"),
            ("/retention.audit_days", "read_only"),
            ("/security.allowed_email_domains/1", "invalid_text"),
            ("/security.session_idle_minutes", "invalid_type"),
            ("/support.url", "invalid_url"),
            ("/tasks.reference_prefix", "invalid_text"),
            ("/webhook.default_url", "internal_address"),
        ],
    );
    assert_errors(
        patch(&world, admin, json!({"nothing": 1, DIGEST: "daily"})).await,
        "unknown_field",
        &[("/nothing", "unknown_field")],
    );
    let twice = world
        .client
        .request(actix_web::http::Method::PATCH, SETTINGS)
        .bearer(&admin.access_token);
    let twice = twice
        .header("Content-Type", "application/json")
        .body(format!("{{\"{DIGEST}\":\"off\",\"{DIGEST}\":\"daily\"}}"));
    twice.await.problem(422, "validation_failed");
    patch(&world, admin, json!([]))
        .await
        .problem(422, "validation_failed");
    patch(
        &world,
        admin,
        json!({"support.url": format!("https://a.example/{}", "x".repeat(5_000))}),
    )
    .await
    .problem(422, "validation_failed");
    assert_eq!(world.digest(&world.acme).await, before);
}

#[actix_web::test]
async fn a_name_that_leads_inside_is_refused_when_it_is_set() {
    let hosts = Arc::new(KnownHosts::default());
    let world = World::with(Options {
        resolver: hosts.clone(),
        ..Options::default()
    })
    .await;
    let admin = &world.acme.admin;
    let addresses = |list: &[&str]| {
        list.iter()
            .map(|address| address.parse().unwrap())
            .collect::<Vec<IpAddr>>()
    };
    hosts.tell("inside.example", &addresses(&["10.0.0.7"]));
    hosts.tell(
        "both.example",
        &addresses(&["93.184.216.34", "::ffff:169.254.169.254"]),
    );
    hosts.tell("nobody.example", &[]);
    for host in ["inside.example", "both.example"] {
        let body = json!({"webhook.default_url": format!("https://{host}/"), DIGEST: "daily"});
        assert_errors(
            patch(&world, admin, body).await,
            "validation_failed",
            &[("/webhook.default_url", "internal_address")],
        );
        let logo = world.patch(
            admin,
            "/api/v1/branding",
            &json!({"logo_url": format!("https://{host}/l.png")}),
        );
        assert_errors(
            logo.await,
            "validation_failed",
            &[("/logo_url", "internal_address")],
        );
    }
    let nested = json!({"appearance.navigation": [{"label": "a", "url": "https://a.example"}, {"label": "b", "url": "https://inside.example"}]});
    assert_errors(
        patch(&world, admin, nested).await,
        "validation_failed",
        &[("/appearance.navigation/1/url", "internal_address")],
    );
    let warned = patch(&world, admin, json!({"support.url": "https://nobody.example/x"}))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (
            &warned["version"],
            &warned["warnings"][0]["pointer"],
            &warned["warnings"][0]["code"]
        ),
        (&json!(1), &json!("/support.url"), &json!("host_not_found"))
    );
}

#[actix_web::test]
async fn a_change_is_made_only_to_what_one_has_seen() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    let seen = world.get(admin, SETTINGS).await.expect(200);
    let tag = seen.header("etag").unwrap().to_owned();
    let again = world
        .get(admin, SETTINGS)
        .header("If-None-Match", &tag)
        .await
        .expect(304);
    assert!(again.bytes.is_empty());
    let change = |hour: i64, tag: &str| {
        let request = world.patch(admin, SETTINGS, &json!({"notifications.digest_hour": hour}));
        request.header("If-Match", tag).send()
    };
    let changed = change(9, &tag).await.expect(200);
    assert_eq!(change(10, &tag).await.problem(412, "stale_version").status, 412);
    let new_tag = changed.header("etag").unwrap();
    assert_eq!(
        world.get(admin, SETTINGS).await.header("etag"),
        Some(new_tag),
        "what a GET would say"
    );
    change(10, "\"1\"").await.expect(200);
    // What the plan says is part of what is seen.
    let tag = world
        .get(admin, SETTINGS)
        .await
        .header("etag")
        .unwrap()
        .to_owned();
    let sql = format!(
        "UPDATE tenants SET plan = 'enterprise' WHERE id = '{}'",
        world.acme.id
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();
    world.outlive_the_cache();
    world
        .get(admin, SETTINGS)
        .header("If-None-Match", &tag)
        .await
        .expect(200);
    change(11, &tag).await.expect(200);
}

#[actix_web::test]
async fn parallel_changes_are_all_kept_each_as_a_version_of_its_own() {
    let world = World::new().await;
    let keys = [
        "tasks.reference_prefix",
        "notifications.digest_hour",
        "security.session_idle_minutes",
        "appearance.theme",
    ];
    let values = [json!("AB"), json!(1), json!(30), json!("dark")];
    let changes = keys
        .iter()
        .zip(&values)
        .map(|(key, value)| patch(&world, &world.acme.admin, json!({*key: value})));
    for reply in futures_util::future::join_all(changes).await {
        reply.expect(200);
    }
    let now = get(&world, &world.acme.admin, "").await;
    assert_eq!(now["version"], 4);
    for (key, value) in keys.iter().zip(&values) {
        assert_eq!(now["settings"][key]["value"], *value, "{key}");
    }
    assert_eq!(
        get(&world, &world.acme.admin, "/versions").await["data"]
            .as_array()
            .unwrap()
            .len(),
        4
    );
}

#[actix_web::test]
async fn history_can_be_read_compared_and_gone_back_to() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    patch(&world, admin, json!({DIGEST: "daily"})).await.expect(200);
    patch(
        &world,
        admin,
        json!({DIGEST: "off", "support.url": "https://a.example/", PASSWORD: "first secret"}),
    )
    .await
    .expect(200);
    patch(
        &world,
        admin,
        json!({PASSWORD: "second secret", "notifications.digest_hour": 7}),
    )
    .await
    .expect(200);
    let first = get(&world, admin, "/versions?limit=2").await;
    let numbers = |page: &Value| {
        page["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v["version"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(&first), [3, 2]);
    let rest = get(
        &world,
        admin,
        &format!(
            "/versions?limit=2&cursor={}",
            first["next_cursor"].as_str().unwrap()
        ),
    )
    .await;
    assert_eq!((numbers(&rest), &rest["next_cursor"]), (vec![1], &Value::Null));
    let second = get(&world, admin, "/versions/2").await;
    assert_eq!(
        second["settings"],
        json!({DIGEST: "off", "support.url": "https://a.example/", PASSWORD: {"is_set": true}})
    );
    assert_eq!(second["changed_by"], json!(admin.id));
    assert_eq!(
        get(&world, admin, "/versions/1/diff/3").await,
        json!({"from": 1, "to": 3, "changes": [
            {"key": PASSWORD, "before": null, "after": {"is_set": true}},
            {"key": "notifications.digest_hour", "before": null, "after": 7},
            {"key": DIGEST, "before": "daily", "after": "off"},
            {"key": "support.url", "before": null, "after": "https://a.example/"},
        ]})
    );
    let secret_only = get(&world, admin, "/versions/2/diff/3").await;
    assert_eq!(
        secret_only["changes"][0],
        json!({"key": PASSWORD, "before": {"is_set": true}, "after": {"is_set": true}})
    );
    for missing in ["4", "0", "-1", "x", "01"] {
        world
            .get(admin, &format!("{SETTINGS}/versions/{missing}"))
            .await
            .problem(404, "not_found");
    }
    world
        .get(&world.globex.admin, &format!("{SETTINGS}/versions/1"))
        .await
        .problem(404, "not_found");

    let back = roll_back(&world, 1).await.expect(200).json();
    assert_eq!(back["version"], 4);
    assert_eq!(back["settings"][DIGEST]["value"], "daily");
    assert_eq!(back["settings"]["support.url"]["origin"], "default");
    assert_eq!(
        back["settings"][PASSWORD],
        json!({"is_set": true}),
        "a secret is in no version and stays"
    );
    assert_eq!(get(&world, admin, "/versions/4").await["rolled_back_to"], 1);
    assert_errors(
        roll_back(&world, 9).await,
        "validation_failed",
        &[("/version", "not_found")],
    );
    let cx = world.cx(admin).await;
    assert_eq!(
        setting::reveal(&cx, &SMTP_PASSWORD)
            .await
            .unwrap()
            .unwrap()
            .reveal(),
        "second secret"
    );
}

#[actix_web::test]
async fn a_version_that_no_longer_holds_is_not_gone_back_to() {
    let hosts = Arc::new(KnownHosts::default());
    let old = Definition::new("shop.old", Kind::Boolean, json!(false), "Was there once.");
    let rows = |most| {
        Definition::new(
            "shop.rows",
            Kind::Integer(1..=most),
            json!(1),
            "Its range became smaller.",
        )
    };
    let before = Options {
        definitions: vec![old, rows(100)],
        resolver: hosts.clone(),
        ..Options::default()
    };
    let world = World::with(before.clone()).await;
    let admin = &world.acme.admin;
    patch(
        &world,
        admin,
        json!({"shop.old": true, "shop.rows": 50, "support.url": "https://moved.example/"}),
    )
    .await
    .expect(200);
    patch(
        &world,
        admin,
        json!({"shop.old": null, "shop.rows": null, "support.url": null}),
    )
    .await
    .expect(200);
    let newer = Options {
        definitions: vec![rows(10)],
        ..before
    };
    let client = world.other_instance(&newer).await;
    let body = json!({"version": 1});
    let roll_back = || {
        client
            .post(&format!("{SETTINGS}/rollback"), &body)
            .bearer(&admin.access_token)
            .send()
    };
    let refused = roll_back().await.problem(422, "validation_failed").json();
    let details: Vec<_> = refused["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["pointer"].clone(), e["detail"].as_str().unwrap()))
        .collect();
    assert_eq!(details.len(), 2, "{refused}");
    assert!(details.iter().all(|(pointer, _)| pointer == "/version"));
    assert!(
        details[0].1.starts_with("shop.old: ") && details[1].1.starts_with("shop.rows: "),
        "{refused}"
    );
    // The rules are those of a change, names included.
    hosts.tell("moved.example", &["127.0.0.1".parse().unwrap()]);
    assert_errors(
        self::roll_back(&world, 1).await,
        "validation_failed",
        &[("/version", "internal_address")],
    );
    assert_eq!(get(&world, admin, "").await["version"], 2);
}

#[actix_web::test]
async fn every_change_says_who_when_before_and_after_and_never_a_secret() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    patch(
        &world,
        admin,
        json!({DIGEST: "daily", PASSWORD: "hunter2hunter2"}),
    )
    .await
    .expect(200);
    patch(&world, admin, json!({DIGEST: null, PASSWORD: null}))
        .await
        .expect(200);
    roll_back(&world, 1).await.expect(200);
    let audited = world.audit(&world.acme).await;
    let entries: Vec<_> = audited
        .iter()
        .filter(|(action, _)| action.starts_with("settings."))
        .collect();
    let actions: Vec<_> = entries.iter().map(|(action, _)| action.as_str()).collect();
    assert_eq!(
        actions,
        ["settings.updated", "settings.updated", "settings.rolled_back"]
    );
    assert_eq!(
        entries[0].1["before"],
        json!({"version": 0, "values": {DIGEST: null, PASSWORD: {"is_set": false}}})
    );
    assert_eq!(
        entries[0].1["after"],
        json!({"version": 1, "values": {DIGEST: "daily", PASSWORD: {"is_set": true}}})
    );
    assert_eq!(
        entries[2].1["after"],
        json!({"version": 3, "values": {DIGEST: "daily"}, "rolled_back_to": 1})
    );
    assert_eq!(entries[0].1["actor_id"], json!(admin.id));
    // Nowhere in the database is it to be read.
    let sql = "SELECT string_agg(query_to_xml(format('SELECT * FROM %I', table_name), true, false, '')::text, '') \
               FROM information_schema.tables WHERE table_schema = 'public'";
    let everything: String = sqlx::query_scalar(sql)
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap();
    assert!(everything.contains("settings.rolled_back") && !everything.contains("hunter2"));
}

#[actix_web::test]
async fn a_suspended_tenant_reads_its_settings_and_does_not_change_them() {
    let world = World::new().await;
    patch(&world, &world.acme.admin, json!({DIGEST: "daily"}))
        .await
        .expect(200);
    world.set_status(&world.acme, "suspended").await;
    assert_eq!(
        get(&world, &world.acme.viewer, "").await["settings"][DIGEST]["value"],
        "daily"
    );
    get(&world, &world.acme.admin, "/versions").await;
    patch(&world, &world.acme.admin, json!({DIGEST: "off"}))
        .await
        .problem(403, "tenant_suspended");
    roll_back(&world, 1).await.problem(403, "tenant_suspended");
}

#[actix_web::test]
async fn code_reads_settings_with_their_types_and_without_the_database_once_they_are_warm() {
    const MOST: Setting<u32> = Setting::new("notes.most_per_task");
    const WRONG: Setting<bool> = Setting::new("notes.most_per_task");
    const MISSING: Setting<bool> = Setting::new("notes.nothing");
    let ours = Definition::new(
        MOST.key(),
        Kind::Integer(1..=1_000),
        json!(100),
        "How many notes a task has.",
    );
    let world = World::with(Options {
        definitions: vec![ours],
        ..Options::default()
    })
    .await;
    let (acme, globex) = (
        world.cx(&world.acme.admin).await,
        world.cx(&world.globex.admin).await,
    );
    assert_eq!(setting::get(&acme, &MOST).await.unwrap(), 100);
    assert!(matches!(
        setting::get(&acme, &WRONG).await,
        Err(SettingError::Own(SettingReason::Undefined("notes.most_per_task")))
    ));
    assert!(matches!(
        setting::get(&acme, &MISSING).await,
        Err(SettingError::Own(SettingReason::Undefined("notes.nothing")))
    ));
    for most in [7, 8, 9] {
        patch(&world, &world.acme.admin, json!({MOST.key(): most}))
            .await
            .expect(200);
        patch(&world, &world.globex.admin, json!({MOST.key(): most * 10}))
            .await
            .expect(200);
        assert_eq!(setting::get(&acme, &MOST).await.unwrap(), most, "seen at once");
        assert_eq!(setting::get(&globex, &MOST).await.unwrap(), most * 10);
    }
    let loads = world.configurations.stats().loads;
    for _ in 0..100 {
        assert_eq!(setting::get(&acme, &MOST).await.unwrap(), 9);
        assert_eq!(
            setting::get(&acme, &TASKS_DEFAULT_PRIORITY).await.unwrap(),
            tenantry_domain::work::Priority::Normal
        );
    }
    assert_eq!(
        world.configurations.stats().loads,
        loads,
        "nothing was read again"
    );
    world.pool.close();
    assert_eq!(
        setting::get(&acme, &MOST).await.unwrap(),
        9,
        "the database is not needed"
    );
}

#[actix_web::test]
async fn what_only_the_operator_changes_is_changed_by_the_operator_and_survives_a_rollback() {
    let world = World::new().await;
    let admin = &world.acme.admin;
    patch(&world, admin, json!({DIGEST: "daily"})).await.expect(200);
    let set = setting::operate(
        &operator_cx(&world.app),
        world.acme.id,
        "retention.audit_days",
        Some(json!(400)),
    )
    .await
    .unwrap();
    assert_eq!(set.values["retention.audit_days"].value, json!(400));
    assert!(
        setting::operate(
            &operator_cx(&world.app),
            world.acme.id,
            "retention.audit_days",
            Some(json!(1))
        )
        .await
        .is_err()
    );
    assert_eq!(get(&world, admin, "/versions/2").await["changed_by"], Value::Null);
    let back = roll_back(&world, 1).await.expect(200).json();
    assert_eq!(back["settings"]["retention.audit_days"]["value"], 400);
    patch(&world, admin, json!({"retention.audit_days": null}))
        .await
        .problem(422, "validation_failed");
}

#[actix_web::test]
async fn secrets_are_sealed_for_their_tenant_and_sealed_anew_after_a_change_of_the_key() {
    let (old, new) = (SigningKey::generate().to_pem(), SigningKey::generate().to_pem());
    let with = |keys: &[&String]| Options {
        keys: keys.iter().map(|key| (*key).clone()).collect(),
        ..Options::default()
    };
    let world = World::with(with(&[&old])).await;
    let (acme, globex) = (&world.acme, &world.globex);
    patch(&world, &acme.admin, json!({PASSWORD: "of acme"}))
        .await
        .expect(200);
    patch(
        &world,
        &globex.admin,
        json!({PASSWORD: "of globex", DIGEST: "daily"}),
    )
    .await
    .expect(200);
    let sheet = world
        .cx(&acme.admin)
        .await
        .read(async |work| Ok::<_, StoreError>(work.settings().current().await?))
        .await
        .unwrap();
    let seal = world.cx(&acme.admin).await.seal_alone(b"").await.unwrap();
    let sealed = &sheet.secrets[PASSWORD].sealed;
    assert!(
        seal.open(&SettingSheet::place(acme.id, PASSWORD), sealed)
            .is_some()
    );
    assert_eq!(
        seal.open(&SettingSheet::place(globex.id, PASSWORD), sealed),
        None,
        "another tenant's row"
    );
    assert_eq!(
        seal.open(&SettingSheet::place(acme.id, "another.key"), sealed),
        None,
        "another key"
    );

    let both = world.instance(&with(&[&new, &old])).app;
    let one = Resealed {
        resealed_keys: 1,
        current: 1,
        ..Resealed::default()
    };
    let none = Resealed {
        current: 1,
        ..Resealed::default()
    };
    let versions = get(&world, &globex.admin, "/versions").await;
    for tenant in [acme.id, globex.id] {
        assert_eq!(reseal::reseal(&operator_cx(&both), tenant).await.unwrap(), one);
        assert_eq!(
            reseal::reseal(&operator_cx(&both), tenant).await.unwrap(),
            none,
            "a second time there is nothing to do"
        );
    }
    assert_eq!(
        get(&world, &globex.admin, "/versions").await,
        versions,
        "no change that anybody would notice"
    );
    let after = world.instance(&with(&[&new])).app;
    let cx = tenantry_tenancy::Cx::new(
        after,
        world.cx(&acme.admin).await.scope().clone(),
        Default::default(),
    );
    assert_eq!(
        setting::reveal(&cx, &SMTP_PASSWORD)
            .await
            .unwrap()
            .unwrap()
            .reveal(),
        "of acme"
    );
    let stranger = world.instance(&with(&[&old])).app;
    let lost = reseal::reseal(&operator_cx(&stranger), acme.id).await.unwrap();
    assert_eq!(
        lost.unreadable,
        ["data key 1", PASSWORD],
        "what no key opens is left as it is"
    );
}

#[actix_web::test]
async fn the_schema_says_what_may_be_sent() {
    let world = World::new().await;
    let reply = world
        .get(&world.acme.admin, &format!("{SETTINGS}/schema"))
        .await
        .expect(200);
    assert_eq!(reply.header("content-type"), Some("application/schema+json"));
    let schema = reply.json();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["additionalProperties"], false);
    let property = |key: &str| schema["properties"][key].clone();
    assert_eq!(
        property(DIGEST)["anyOf"][0],
        json!({"type": "string", "enum": ["off", "daily", "weekly"]})
    );
    assert_eq!(property(PASSWORD)["writeOnly"], true);
    assert_eq!(property("retention.audit_days")["readOnly"], true);
    assert_eq!(
        property("notifications.digest_hour")["anyOf"],
        json!([{"type": "integer", "minimum": 0, "maximum": 23}, {"type": "null"}])
    );
    assert_eq!(
        property("appearance.navigation")["anyOf"][0]["items"]["required"],
        json!(["label", "url"])
    );
}

#[actix_web::test]
async fn a_task_that_names_no_priority_has_the_tenants() {
    let world = World::new().await;
    let path = format!("/api/v1/projects/{}/tasks", world.acme.project);
    let make = async |body: Value| {
        world
            .post(&world.acme.member, &path, &body)
            .await
            .expect(201)
            .json()
    };
    assert_eq!(make(json!({"title": "A"})).await["priority"], "normal");
    patch(
        &world,
        &world.acme.admin,
        json!({TASKS_DEFAULT_PRIORITY.key(): "high"}),
    )
    .await
    .expect(200);
    assert_eq!(make(json!({"title": "B"})).await["priority"], "high");
    assert_eq!(
        make(json!({"title": "C", "priority": "low"})).await["priority"],
        "low"
    );
}
