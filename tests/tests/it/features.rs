//! Feature flags, as tenants see them and operators define them.

use chrono::Duration;
use serde_json::{Value, json};
use tenantry_domain::flags::{FlagDefinition, Segment};
use tenantry_tenancy::flags::{flag, flag_definition};
use tenantry_tenancy::{Cx, Precondition};
use tenantry_tests::{Person, Reply, World};

const FLAGS: &str = "/api/v1/admin/flags";
const FEATURES: &str = "/api/v1/features";

/// A definition with some of its fields replaced.
pub fn definition(key: &str, changes: Value) -> Value {
    let mut flag = json!({
        "key": key, "description": "A flag of a test", "type": "boolean", "variants": {"on": true, "off": false},
        "default_variant": "off", "off_variant": "off", "client_visible": true,
    });
    let Value::Object(changes) = changes else {
        unreachable!()
    };
    flag.as_object_mut().unwrap().extend(changes);
    flag
}

/// Defines a flag, as a command on the server would.
pub async fn define(world: &World, key: &str, changes: Value) -> FlagDefinition {
    let flag = serde_json::from_value(definition(key, changes)).unwrap();
    flag_definition::create(&world.operator_cx(), flag).await.unwrap()
}

/// Puts another definition in the place of a flag's.
pub async fn redefine(world: &World, key: &str, changes: Value) {
    let flag: FlagDefinition = serde_json::from_value(definition(key, changes)).unwrap();
    flag_definition::replace(&world.operator_cx(), key, &Precondition::None, flag)
        .await
        .unwrap();
}

/// A flag as somebody sees it; null when they do not.
async fn seen(world: &World, who: &Person, key: &str) -> Value {
    let list = world.get(who, FEATURES).await.expect(200).json();
    let found = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|flag| flag["key"] == key);
    found.cloned().unwrap_or_default()
}

fn on_for(attribute: &str, value: &str) -> Value {
    json!({"level": "tenant", "description": format!("for {value}"),
        "when": [{"attribute": attribute, "operator": "in", "values": [value]}], "serve": {"variant": "on"}})
}

#[actix_web::test]
async fn each_role_sees_what_it_may_know_of() {
    let world = World::new().await;
    define(&world, "shown", json!({})).await;
    define(&world, "hidden", json!({"client_visible": false})).await;
    define(
        &world,
        "theirs",
        json!({"client_visible": false, "tenant_overridable": true}),
    )
    .await;
    define(&world, "draft", json!({"lifecycle": "draft"})).await;
    define(&world, "gone", json!({"lifecycle": "archived"})).await;
    let keys = async |who| {
        let list = world.get(who, FEATURES).await.expect(200).json();
        assert_eq!(list["next_cursor"], Value::Null);
        let keys = list["data"].as_array().unwrap().iter();
        keys.map(|flag| flag["key"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(&world.acme.viewer).await, ["shown"]);
    assert_eq!(keys(&world.acme.member).await, ["shown"]);
    assert_eq!(keys(&world.acme.admin).await, ["shown", "theirs"]);
    assert_eq!(
        seen(&world, &world.acme.viewer, "shown").await,
        json!({
            "key": "shown", "description": "A flag of a test", "type": "boolean", "variants": {"off": false, "on": true},
            "value": false, "variant": "off", "reason": "STATIC", "level": "default", "lifecycle": "active",
            "overridable": false, "override": null,
        })
    );
    for key in ["hidden", "draft", "gone", "nothing", "a%20b", "%00"] {
        let path = format!("{FEATURES}/{key}/explain");
        world
            .get(&world.acme.admin, &path)
            .await
            .problem(404, "not_found");
    }
}

#[actix_web::test]
async fn a_rollout_of_tenants_grows_and_turns_nobody_off() {
    let world = World::new().await;
    let rollout = |percent: u32| {
        json!({"rules": [{"level": "global",
            "serve": {"split": {"by": "tenant", "parts": [{"variant": "on", "percent": percent}]}}}]})
    };
    define(&world, "rollout", rollout(0)).await;
    let mut was_on = [false; 2];
    for percent in [20, 50, 100] {
        redefine(&world, "rollout", rollout(percent)).await;
        for (tenant, was_on) in [&world.acme, &world.globex].into_iter().zip(&mut was_on) {
            let flag = seen(&world, &tenant.viewer, "rollout").await;
            let bucket =
                u32::from(tenantry_domain::flags::Bucket::of("rollout", &tenant.id.to_string()).number());
            let on = bucket < percent * 100;
            assert_eq!(flag["value"], on, "{percent} %, bucket {bucket}");
            assert_eq!(flag["reason"], if on { "SPLIT" } else { "DEFAULT" });
            assert!(on || !*was_on);
            *was_on = on;
            // Everybody of a tenant gets the same.
            assert_eq!(seen(&world, &tenant.admin, "rollout").await, flag);
        }
    }
}

#[actix_web::test]
async fn an_admin_overrides_what_is_theirs_and_each_step_is_recorded() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, &world.globex);
    define(&world, "theirs", json!({"tenant_overridable": true})).await;
    define(&world, "ours", json!({})).await;
    let path = format!("{FEATURES}/theirs/override");
    let put = async |tag: &str, variant: &str| {
        let request = world.put(&acme.admin, &path, &json!({"variant": variant}));
        let request = if tag.is_empty() {
            request
        } else {
            request.header("If-Match", tag)
        };
        request.await
    };
    put("\"1\"", "on").await.problem(412, "stale_version");
    let first = put("", "on").await.expect(200);
    assert_eq!(first.header("etag"), Some("\"1\""));
    assert_eq!(first.json()["value"], true);
    assert_eq!(
        (&first.json()["reason"], &first.json()["level"]),
        (&json!("TARGETING_MATCH"), &json!("tenant"))
    );
    put("\"7\"", "off").await.problem(412, "stale_version");
    assert_eq!(
        put("\"1\"", "off").await.expect(200).json()["override"]["version"],
        2
    );
    put("", "on").await.expect(200);
    assert_eq!(
        seen(&world, &acme.viewer, "theirs").await["value"],
        true,
        "at once, for everybody of the tenant"
    );
    assert_eq!(seen(&world, &globex.viewer, "theirs").await["value"], false);
    let problem = put("", "blue").await.problem(422, "validation_failed").json();
    assert_eq!(
        problem["errors"],
        json!([{"pointer": "/variant", "code": "unknown_variant", "detail": "must be one of `off`, `on`"}])
    );
    for (body, code) in [
        (json!({}), "validation_failed"),
        (json!({"variant": 1}), "validation_failed"),
        (json!({"variant": "on", "x": 1}), "unknown_field"),
    ] {
        world.put(&acme.admin, &path, &body).await.problem(422, code);
    }
    let other = format!("{FEATURES}/ours/override");
    world
        .put(&acme.admin, &other, &json!({"variant": "on"}))
        .await
        .problem(403, "forbidden");
    world
        .put(&acme.member, &path, &json!({"variant": "on"}))
        .await
        .problem(403, "forbidden");

    world
        .delete(&acme.admin, &path)
        .header("If-Match", "\"1\"")
        .await
        .problem(412, "stale_version");
    world
        .delete(&acme.admin, &path)
        .header("If-Match", "\"3\"")
        .await
        .expect(204);
    world.delete(&acme.admin, &path).await.problem(404, "not_found");
    assert_eq!(
        seen(&world, &acme.viewer, "theirs").await["override"],
        Value::Null
    );
    let audit = world.audit(acme).await;
    let of_flags: Vec<_> = audit
        .iter()
        .filter(|(action, _)| action.starts_with("flag."))
        .collect();
    let actions: Vec<_> = of_flags.iter().map(|(action, _)| action.as_str()).collect();
    assert_eq!(
        actions,
        [
            "flag.overridden",
            "flag.overridden",
            "flag.overridden",
            "flag.override_removed"
        ]
    );
    assert_eq!(of_flags[1].1["before"]["variant"], "on");
    assert_eq!(of_flags[1].1["after"]["variant"], "off");
    assert_eq!(of_flags[3].1["actor_id"], acme.admin.id.to_string());
}

#[actix_web::test]
async fn an_explanation_shows_every_level_and_nothing_of_another_tenant() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, &world.globex);
    let rules = json!([
        on_for("tenant_id", &globex.id.to_string()),
        on_for("tenant_slug", "globex"),
        {"level": "tenant", "when": [{"segment": "globex-pilots"}], "serve": {"variant": "on"}},
        {"level": "plan", "when": [{"attribute": "plan", "operator": "in", "values": ["pro"]}], "serve": {"variant": "on"}},
        {"level": "global", "serve": {"split": {"by": "tenant", "parts": [{"variant": "on", "percent": 0.01}]}}},
    ]);
    let segment = json!({"key": "globex-pilots", "description": "globex",
        "when": [{"attribute": "tenant_slug", "operator": "in", "values": ["globex"]}]});
    let segment = serde_json::from_value(segment).unwrap();
    flag_definition::create::<Segment>(&world.operator_cx(), segment)
        .await
        .unwrap();
    define(&world, "told", json!({"rules": rules, "salt": "pepper"})).await;
    let path = format!("{FEATURES}/told/explain");
    let reply = world.get(&acme.admin, &path).await.expect(200);
    let bucket = tenantry_domain::flags::Bucket::of("pepper", &acme.id.to_string()).number();
    assert_eq!(
        reply.json(),
        json!({
            "key": "told", "value": true, "variant": "on", "reason": "TARGETING_MATCH", "level": "plan",
            "salt": "pepper", "enabled": true, "prerequisites": [],
            "levels": [
                {"level": "default", "variant": "off", "chosen": false, "rules": []},
                {"level": "global", "variant": null, "chosen": false, "rules": [{"result": "outside_share", "bucket": bucket}]},
                {"level": "plan", "variant": "on", "chosen": false, "rules": [{"result": "matched", "bucket": null}]},
                {"level": "tenant", "variant": null, "chosen": false, "rules": []},
                {"level": "user", "variant": null, "chosen": false, "rules": []},
            ],
        })
    );
    let list = world.get(&acme.admin, FEATURES).await.expect(200);
    for reply in [&reply, &list] {
        for secret in [&globex.id.to_string(), "globex", "pilots"] {
            assert!(!reply.text().contains(secret), "{}", reply.text());
        }
    }
    world.get(&acme.member, &path).await.problem(403, "forbidden");
    let theirs = world.get(&globex.admin, &path).await.expect(200).json();
    assert_eq!(
        (&theirs["level"], &theirs["levels"][3]["rules"]),
        (&json!("tenant"), &json!([{"result": "matched", "bucket": null}]))
    );
}

#[actix_web::test]
async fn a_schedule_switches_on_and_off_by_itself() {
    let world = World::new().await;
    let now = tenantry_domain::kernel::Clock::now(&*world.clock);
    let rule = json!({"level": "global", "from": now + Duration::hours(1), "until": now + Duration::hours(2),
        "serve": {"variant": "on"}});
    define(&world, "timed", json!({"rules": [rule]})).await;
    let mut seen_at = Vec::new();
    for minutes in [0, 59, 1, 59, 1] {
        world.clock.advance(Duration::minutes(minutes));
        let cx = fresh_cx(&world).await;
        let flags = flag::of(&cx).await.unwrap();
        seen_at.push(flags.is_on("timed", &flag::subject(&cx), cx.now()));
    }
    assert_eq!(seen_at, [false, false, true, true, false]);
}

/// A context that does not mind how much time has passed.
async fn fresh_cx(world: &World) -> Cx {
    let login = world
        .login("acme", &world.acme.viewer.email, "correct horse")
        .await
        .expect(200)
        .json();
    let person = Person {
        access_token: login["access_token"].as_str().unwrap().to_owned(),
        ..world.acme.viewer.clone()
    };
    world.cx(&person).await
}

#[actix_web::test]
async fn interleaved_tenants_and_changes_never_mix_up_flags() {
    let world = World::new().await;
    define(
        &world,
        "mine",
        json!({"type": "string", "variants": {"none": "none", "acme": "acme", "globex": "globex"},
        "default_variant": "none", "off_variant": "none", "tenant_overridable": true}),
    )
    .await;
    for round in 0..20 {
        for tenant in [&world.acme, &world.globex] {
            let path = format!("{FEATURES}/mine/override");
            if round % 3 == 2 {
                world.delete(&tenant.admin, &path).await.expect(204);
            } else {
                world
                    .put(&tenant.admin, &path, &json!({"variant": tenant.slug}))
                    .await
                    .expect(200);
            }
        }
        let ask = |who: &Person| world.get(who, FEATURES).send();
        let (acme, globex) = futures_util::join!(ask(&world.acme.viewer), ask(&world.globex.viewer));
        let value = |reply: Reply| reply.expect(200).json()["data"][0]["value"].clone();
        let expected = if round % 3 == 2 {
            ["none", "none"]
        } else {
            ["acme", "globex"]
        };
        assert_eq!([value(acme), value(globex)], expected, "round {round}");
    }
}

#[actix_web::test]
async fn a_change_of_plan_is_a_change_of_flags() {
    let world = World::new().await;
    let rule = json!({"level": "plan", "when": [{"attribute": "plan", "operator": "in", "values": ["pro"]}], "serve": {"variant": "on"}});
    define(&world, "paid", json!({"rules": [rule]})).await;
    assert_eq!(seen(&world, &world.acme.viewer, "paid").await["value"], true);
    let sql = format!("UPDATE tenants SET plan = 'free' WHERE id = '{}'", world.acme.id);
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();
    world.outlive_the_cache();
    assert_eq!(seen(&world, &world.acme.viewer, "paid").await["value"], false);
    assert_eq!(seen(&world, &world.globex.viewer, "paid").await["value"], true);
}

#[actix_web::test]
async fn operators_define_change_archive_and_roll_back() {
    let world = World::new().await;
    let token = world.operator("olga@platform.example").await;
    let call = async |method: &str, path: &str, tag: Option<&str>, body: Option<Value>| {
        let mut request = world.client.request(method.parse().unwrap(), path).bearer(&token);
        if let Some(tag) = tag {
            request = request.header("If-Match", tag);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.await
    };
    let made = call("POST", FLAGS, None, Some(definition("new-checkout", json!({}))))
        .await
        .expect(201);
    assert_eq!(made.header("location"), Some("/api/v1/admin/flags/new-checkout"));
    assert_eq!(made.header("etag"), Some("\"1\""));
    call("POST", FLAGS, None, Some(definition("new-checkout", json!({}))))
        .await
        .problem(409, "conflict");
    let one = format!("{FLAGS}/new-checkout");
    let killed = definition("new-checkout", json!({"enabled": false}));
    call("PUT", &one, Some("\"9\""), Some(killed.clone()))
        .await
        .problem(412, "stale_version");
    let second = call("PUT", &one, Some("\"1\""), Some(killed))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&second["version"], &second["enabled"]),
        (&json!(2), &json!(false))
    );
    assert_eq!(
        seen(&world, &world.acme.viewer, "new-checkout").await["reason"],
        "DISABLED",
        "at once"
    );
    for (change, pointer) in [
        (json!({"key": "other"}), "/key"),
        (
            json!({"type": "string", "variants": {"on": "a", "off": "b"}}),
            "/type",
        ),
    ] {
        let problem = call("PUT", &one, None, Some(definition("new-checkout", change))).await;
        assert_eq!(
            problem.problem(422, "validation_failed").json()["errors"][0]["pointer"],
            pointer
        );
    }
    let back = call(
        "POST",
        &format!("{one}/rollback"),
        None,
        Some(json!({"version": 1})),
    )
    .await
    .expect(200)
    .json();
    assert_eq!((&back["version"], &back["enabled"]), (&json!(3), &json!(true)));
    let problem = call(
        "POST",
        &format!("{one}/rollback"),
        None,
        Some(json!({"version": 8})),
    )
    .await;
    assert_eq!(
        problem.problem(422, "validation_failed").json()["errors"][0]["pointer"],
        "/version"
    );
    call("POST", &format!("{one}/archive"), Some("\"3\""), None)
        .await
        .expect(200);
    assert_eq!(
        seen(&world, &world.acme.viewer, "new-checkout").await,
        Value::Null
    );
    let versions = call("GET", &format!("{one}/versions?limit=3"), None, None)
        .await
        .expect(200)
        .json();
    let numbers: Vec<_> = versions["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| version["version"].as_i64().unwrap())
        .collect();
    assert_eq!(numbers, [4, 3, 2]);
    let next = format!(
        "{one}/versions?limit=3&cursor={}",
        versions["next_cursor"].as_str().unwrap()
    );
    assert_eq!(
        call("GET", &next, None, None).await.expect(200).json()["data"][0]["version"],
        1
    );
    let first = call("GET", &format!("{one}/versions/1"), None, None)
        .await
        .expect(200)
        .json();
    assert_eq!(first["definition"]["enabled"], true);
    for path in [
        "/api/v1/admin/flags/nothing",
        "/api/v1/admin/flags/new-checkout/versions/99",
        "/api/v1/admin/flags/nothing/versions",
        "/api/v1/admin/segments/nothing",
    ] {
        call("GET", path, None, None).await.problem(404, "not_found");
    }
    let events = world.operator_events().await;
    let actions: Vec<_> = events
        .iter()
        .map(|(action, _)| action.as_str())
        .filter(|action| action.starts_with("flag."))
        .collect();
    assert_eq!(
        actions,
        [
            "flag.created",
            "flag.updated",
            "flag.rolled_back",
            "flag.archived"
        ]
    );
    let (_, updated) = events
        .iter()
        .find(|(action, _)| action == "flag.updated")
        .unwrap();
    assert_eq!(updated["details"]["before"]["enabled"], true);
    assert_eq!(updated["details"]["after"]["enabled"], false);
    assert!(updated["operator_id"].is_string());
}

#[actix_web::test]
async fn segments_are_shared_and_stay_while_rules_name_them() {
    let world = World::new().await;
    let token = world.operator("olga@platform.example").await;
    let call = async |method: &str, path: &str, body: Value| {
        let request = world.client.request(method.parse().unwrap(), path).bearer(&token);
        let request = if body.is_null() {
            request
        } else {
            request.json(&body)
        };
        request.await
    };
    let segment = |role: &str| json!({"key": "leaders", "when": [{"attribute": "role", "operator": "in", "values": [role]}]});
    let (all, one) = ("/api/v1/admin/segments", "/api/v1/admin/segments/leaders");
    let rule = json!({"level": "user", "when": [{"segment": "leaders"}], "serve": {"variant": "on"}});
    let flag = definition("led", json!({"rules": [rule]}));
    let problem = call("POST", FLAGS, flag.clone())
        .await
        .problem(422, "validation_failed")
        .json();
    assert_eq!(problem["errors"][0]["pointer"], "/rules/0/when/0/segment");
    call("POST", all, segment("admin")).await.expect(201);
    call("POST", all, segment("admin")).await.problem(409, "conflict");
    call("POST", FLAGS, flag).await.expect(201);
    let values = async || {
        let who = [&world.acme.admin, &world.acme.member];
        [
            seen(&world, who[0], "led").await["value"].clone(),
            seen(&world, who[1], "led").await["value"].clone(),
        ]
    };
    assert_eq!(values().await, [true, false]);
    assert_eq!(
        call("PUT", one, segment("member")).await.expect(200).json()["version"],
        2
    );
    assert_eq!(values().await, [false, true]);
    call("DELETE", one, Value::Null).await.problem(409, "conflict");
    call("PUT", &format!("{FLAGS}/led"), definition("led", json!({})))
        .await
        .expect(200);
    call("DELETE", one, Value::Null).await.expect(204);
    call("GET", one, Value::Null).await.problem(404, "not_found");
    let nested = json!({"key": "nested", "when": [{"segment": "leaders"}]});
    let problem = call("POST", all, nested)
        .await
        .problem(422, "validation_failed")
        .json();
    assert_eq!(problem["errors"][0]["code"], "nested_segment");
}

#[actix_web::test]
async fn each_version_of_a_segment_is_kept_and_a_rollback_brings_it_back() {
    let world = World::new().await;
    let token = world.operator("olga@platform.example").await;
    let call = async |method: &str, path: &str, body: Value, seen: Option<&str>| {
        let request = world.client.request(method.parse().unwrap(), path).bearer(&token);
        let request = if body.is_null() {
            request
        } else {
            request.json(&body)
        };
        let request = match seen {
            Some(tag) => request.header("If-Match", tag),
            None => request,
        };
        request.await
    };
    let segment = |role: &str| json!({"key": "leaders", "when": [{"attribute": "role", "operator": "in", "values": [role]}]});
    let (all, one) = ("/api/v1/admin/segments", "/api/v1/admin/segments/leaders");
    let (versions, rollback) = (&format!("{one}/versions"), &format!("{one}/rollback"));
    let to = |version: i64| json!({"version": version});
    call("GET", versions, Value::Null, None)
        .await
        .problem(404, "not_found");
    call("POST", rollback, to(1), None)
        .await
        .problem(404, "not_found");

    call("POST", all, segment("admin"), None).await.expect(201);
    call("PUT", one, segment("member"), None).await.expect(200);
    let rule = json!({"level": "user", "when": [{"segment": "leaders"}], "serve": {"variant": "on"}});
    define(&world, "led", json!({"rules": [rule]})).await;
    assert_eq!(seen(&world, &world.acme.admin, "led").await["value"], false);
    call("POST", rollback, to(1), Some("\"1\""))
        .await
        .problem(412, "stale_version");
    let back = call("POST", rollback, to(1), Some("\"2\""))
        .await
        .expect(200)
        .json();
    assert_eq!(
        (&back["version"], &back["when"]),
        (&json!(3), &segment("admin")["when"])
    );
    assert_eq!(seen(&world, &world.acme.admin, "led").await["value"], true);
    let problem = call("POST", rollback, to(9), None)
        .await
        .problem(422, "validation_failed")
        .json();
    assert_eq!(problem["errors"][0]["pointer"], "/version");

    // What was deleted comes back, and a flag cannot go back to where it needs what is not there.
    redefine(&world, "led", json!({})).await;
    call("DELETE", one, Value::Null, None).await.expect(204);
    let led = "/api/v1/admin/flags/led/rollback";
    let problem = call("POST", led, to(1), None)
        .await
        .problem(422, "validation_failed")
        .json();
    assert_eq!(problem["errors"][0]["pointer"], "/rules/0/when/0/segment");
    let problem = call("POST", rollback, to(4), None)
        .await
        .problem(422, "validation_failed")
        .json();
    assert_eq!(problem["errors"][0]["code"], "deleted");
    call("POST", rollback, to(2), Some("\"4\"")).await.expect(200);
    call("POST", led, to(1), None).await.expect(200);
    assert_eq!(seen(&world, &world.acme.member, "led").await["value"], true);

    // One defined anew does not take numbers that are taken.
    redefine(&world, "led", json!({})).await;
    call("DELETE", one, Value::Null, None).await.expect(204);
    assert_eq!(
        call("POST", all, segment("viewer"), None)
            .await
            .expect(201)
            .json()["version"],
        7
    );
    let page = call("GET", versions, Value::Null, None).await.expect(200).json();
    let listed: Vec<_> = page["data"].as_array().unwrap().iter().collect();
    let numbers: Vec<_> = listed
        .iter()
        .map(|version| version["version"].as_i64().unwrap())
        .collect();
    assert_eq!(numbers, [7, 6, 5, 4, 3, 2, 1]);
    assert!(listed.iter().all(|version| version["operator_id"].is_string()));
    assert_eq!(listed[1]["definition"], Value::Null);
    let first = call("GET", &format!("{versions}/1"), Value::Null, None)
        .await
        .expect(200)
        .json();
    assert_eq!(first["definition"]["when"], segment("admin")["when"]);
    let actions = world
        .operator_events()
        .await
        .into_iter()
        .map(|(action, _)| action);
    let actions: Vec<_> = actions.filter(|action| action.starts_with("segment.")).collect();
    let (created, updated, rolled, deleted) = (
        "segment.created",
        "segment.updated",
        "segment.rolled_back",
        "segment.deleted",
    );
    assert_eq!(
        actions,
        [created, updated, rolled, deleted, rolled, deleted, created]
    );
}

#[actix_web::test]
async fn a_version_of_a_segment_that_does_not_hold_any_more_is_refused() {
    let world = World::new().await;
    let token = world.operator("olga@platform.example").await;
    let segment = |values: Value| json!({"key": "leaders", "when": [{"attribute": "role", "operator": "in", "values": values}]});
    let (all, one) = ("/api/v1/admin/segments", "/api/v1/admin/segments/leaders");
    for (method, path) in [("POST", all), ("PUT", one)] {
        let request = world.client.request(method.parse().unwrap(), path).bearer(&token);
        let stored = request.json(&segment(json!(["admin"]))).await;
        assert!([200, 201].contains(&stored.status));
    }
    // As an earlier program, which let segments refer to one another, would have stored it.
    sqlx::query(
        "UPDATE segment_versions SET definition = jsonb_set(definition, '{when,0}', $1) WHERE version = 1",
    )
    .bind(json!({"segment": "gone"}))
    .execute(&mut world.database.admin().await)
    .await
    .unwrap();
    let rollback = world
        .client
        .post(&format!("{one}/rollback"), &json!({"version": 1}));
    let reply = rollback.bearer(&token).await;
    let problem = reply.problem(422, "validation_failed").json();
    assert_eq!(problem["errors"][0]["pointer"], "/when/0/segment");
    let now = world.client.get(one).bearer(&token).await.expect(200).json();
    assert_eq!(now["version"], 2);
}

#[actix_web::test]
async fn bad_definitions_get_one_clear_answer_and_change_nothing() {
    let world = World::new().await;
    let token = world.operator("olga@platform.example").await;
    define(&world, "a", json!({})).await;
    define(
        &world,
        "b",
        json!({"prerequisites": [{"flag": "a", "variant": "on"}]}),
    )
    .await;
    let part = |percent: Value| json!({"rules": [{"level": "global", "serve": {"split": {"parts": [{"variant": "on", "percent": percent}]}}}]});
    let when = |condition: Value| json!({"rules": [{"level": "global", "when": [condition], "serve": {"variant": "on"}}]});
    let cases = [
        (
            part(json!(101)),
            "/rules/0/serve/split/parts/0/percent",
            "validation_failed",
        ),
        (
            part(json!(-1)),
            "/rules/0/serve/split/parts/0/percent",
            "validation_failed",
        ),
        (
            part(json!("20")),
            "/rules/0/serve/split/parts/0/percent",
            "validation_failed",
        ),
        (
            json!({"default_variant": "blue"}),
            "/default_variant",
            "validation_failed",
        ),
        (
            json!({"variants": {"on": 1, "off": false}}),
            "/variants/on",
            "validation_failed",
        ),
        (
            json!({"prerequisites": [{"flag": "b", "variant": "on"}]}),
            "/prerequisites/0/flag",
            "validation_failed",
        ),
        (
            json!({"prerequisites": [{"flag": "nothing", "variant": "on"}]}),
            "/prerequisites/0/flag",
            "validation_failed",
        ),
        (json!({"surprise": 1}), "/surprise", "unknown_field"),
        (json!({"type": "colour"}), "/type", "validation_failed"),
        (
            json!({"lifecycle": "archived"}),
            "/lifecycle",
            "validation_failed",
        ),
        (
            when(json!({"segment": "nothing"})),
            "/rules/0/when/0/segment",
            "validation_failed",
        ),
        (
            when(json!({"attribute": "x", "operator": "like", "values": ["y"]})),
            "/rules/0/when/0/operator",
            "validation_failed",
        ),
        (
            when(json!({"attribute": "x"})),
            "/rules/0/when/0",
            "validation_failed",
        ),
        (
            json!({"rules": [{"level": "tenant", "serve": {"variant": "blue"}}]}),
            "/rules/0/serve/variant",
            "validation_failed",
        ),
        (
            json!({"rules": [{"level": "nobody", "serve": {"variant": "on"}}]}),
            "/rules/0/level",
            "validation_failed",
        ),
    ];
    for (changes, pointer, code) in cases {
        let body = definition("a", changes);
        let reply = world
            .client
            .put(&format!("{FLAGS}/a"), &body)
            .bearer(&token)
            .await;
        let problem = reply.problem(422, code).json();
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{body}: {problem}");
    }
    let huge = world.client.put(
        &format!("{FLAGS}/a"),
        &definition("a", json!({"description": "x".repeat(1_100_000)})),
    );
    huge.bearer(&token).await.problem(413, "payload_too_large");
    let now = world
        .client
        .get(&format!("{FLAGS}/a"))
        .bearer(&token)
        .await
        .expect(200)
        .json();
    assert_eq!(now["version"], 1);
    // A rollback is checked among what the others are now.
    redefine(
        &world,
        "a",
        json!({"variants": {"on": true, "off": false, "half": true}}),
    )
    .await;
    redefine(
        &world,
        "b",
        json!({"prerequisites": [{"flag": "a", "variant": "half"}]}),
    )
    .await;
    let back = world
        .client
        .post(&format!("{FLAGS}/a/rollback"), &json!({"version": 1}));
    let problem = back.bearer(&token).await.problem(422, "validation_failed").json();
    assert_eq!(problem["errors"][0]["code"], "variant_in_use");
}

#[actix_web::test]
async fn two_writes_at_once_make_no_cycle() {
    let world = World::new().await;
    define(&world, "a", json!({})).await;
    define(&world, "b", json!({})).await;
    let needs = |other: &str| json!({"prerequisites": [{"flag": other, "variant": "on"}]});
    let write = async |key: &str, other: &str| {
        let flag: FlagDefinition = serde_json::from_value(definition(key, needs(other))).unwrap();
        flag_definition::replace(&world.operator_cx(), key, &Precondition::None, flag)
            .await
            .is_ok()
    };
    let (one, two) = futures_util::join!(write("a", "b"), write("b", "a"));
    assert!(one ^ two, "{one} and {two}");
}

#[actix_web::test]
async fn a_definition_that_cannot_be_read_takes_no_other_away() {
    let world = World::new().await;
    define(&world, "sound", json!({})).await;
    let sql = "INSERT INTO flags VALUES ('odd', '{\"from\": \"a newer program\"}', now(), now(), 1)";
    sqlx::raw_sql(sql)
        .execute(&mut world.database.admin().await)
        .await
        .unwrap();
    world.outlive_the_cache();
    assert_eq!(seen(&world, &world.acme.viewer, "sound").await["value"], false);
    assert_eq!(seen(&world, &world.acme.viewer, "odd").await, Value::Null);
}
