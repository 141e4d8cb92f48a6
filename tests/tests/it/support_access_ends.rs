//! Ends of operators' accesses: what they stop, and what ends them besides an admin's decision.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, which the lint does not recognise outside of test functions"
)]

use chrono::Duration;
use serde_json::{Value, json};
use tenantry_domain::identity::SecurityNotice;
use tenantry_domain::kernel::{StoreError, SystemScope};
use tenantry_domain::work::NewProject;
use tenantry_http::HttpConfig;
use tenantry_tenancy::Cx;
use tenantry_tenancy::operations::job::{JobHandler as _, Nothing};
use tenantry_tenancy::tenant::audit_upkeep::KeepAudit;
use tenantry_tenancy::tenant::support_access::MOST_USES;
use tenantry_tenancy::work::project::{self, ProjectError};
use tenantry_tests::{Options, PASSWORD, Person, TenantWorld, World};

use crate::auth::overtaken;
use crate::support_access::{ADMIN, OWN, SAM, ask, asks, decide, get, granted, logged, post, support, token};

const BECAUSE: SystemScope = SystemScope::because("a test of support access");

/// A context of a request with a token of support, which is made before what comes next.
async fn begun(world: &World, bearer: &str) -> Cx {
    let who = Person {
        access_token: bearer.to_owned(),
        ..world.acme.admin.clone()
    };
    world.cx(&who).await
}

/// Creates a project, each time of another name.
async fn create(cx: &Cx) -> Result<(), ProjectError> {
    let new = NewProject {
        name: format!("By support {}", cx.ports().ids.uuid()),
        description: None,
    };
    project::create(cx, new).await.map(|_| ())
}

fn is_ended(done: &Result<(), ProjectError>) -> bool {
    matches!(done, Err(ProjectError::Store(StoreError::AccessEnded)))
}

async fn count(world: &World, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql)
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap()
}

async fn status(world: &World, tenant: &TenantWorld, id: &str) -> Value {
    let sql = "SELECT to_jsonb(s) FROM support_accesses s WHERE s.tenant_id = $1 AND s.id = $2::uuid";
    let row: Value = sqlx::query_scalar(sql)
        .bind(tenant.id.uuid())
        .bind(id)
        .fetch_one(&mut world.database.admin().await)
        .await
        .unwrap();
    assert_eq!(row["ended_at"].is_null(), row["status"] != "ended");
    row["status"].clone()
}

/// The ends in a tenant's log that no admin decided: access and reason.
async fn ends(world: &World, tenant: &TenantWorld) -> Vec<(Value, Value)> {
    let rows = logged(world, tenant, "support_access.ended").await.into_iter();
    rows.map(|row| {
        (
            row["after"]["support_access_id"].clone(),
            row["after"]["because"].clone(),
        )
    })
    .collect()
}

async fn keep(world: &World, tenant: &TenantWorld) {
    let cx = Cx::enter(&world.app, BECAUSE, tenant.id).await.unwrap().unwrap();
    KeepAudit.run(&cx, Nothing {}).await.unwrap();
}

async fn login(world: &World, email: &str, password: &str) -> String {
    let body = json!({"email": email, "password": password});
    let login = world.client.post("/api/v1/admin/login", &body).await;
    login.expect(200).json()["access_token"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// A client that sends its body slowly has been admitted long before.
#[actix_web::test]
async fn ended_access_finishes_nothing_that_began_before() {
    let world = World::new().await;
    let sam = support(&world).await;
    let projects = "SELECT count(*) FROM projects WHERE name LIKE 'By support %'";
    for how in ["end", "overtake", "expire"] {
        let (id, bearer) = granted(&world, &sam, &world.acme, "write").await;
        let cx = begun(&world, &bearer).await;
        create(&cx).await.unwrap();
        let done = match how {
            "overtake" => {
                let change = format!(
                    "UPDATE support_accesses SET status = 'ended', ended_at = now() WHERE id = '{id}'"
                );
                overtaken(&world, &change, 1, create(&cx)).await
            }
            "expire" => {
                world.clock.advance(Duration::minutes(31));
                create(&cx).await
            }
            _ => {
                decide(&world, &world.acme, &id, "end").await.expect(200);
                create(&cx).await
            }
        };
        assert!(is_ended(&done), "{how}: {done:?}");
        let read = project::get(&cx, world.acme.project).await;
        assert!(is_ended(&read.map(|_| ())), "{how}");
        assert_eq!(count(&world, projects).await, 1, "{how}");
        world
            .sql("UPDATE projects SET name = 'Before ' || id WHERE name LIKE 'By support %'")
            .await;
    }
}

#[actix_web::test]
async fn request_that_the_end_overtakes_is_refused() {
    let world = World::new().await;
    let sam = support(&world).await;
    let (id, bearer) = granted(&world, &sam, &world.acme, "write").await;
    let change = format!("UPDATE support_accesses SET status = 'ended', ended_at = now() WHERE id = '{id}'");
    let path = format!("/api/v1/projects/{}", world.acme.project);
    let patch = world.client.patch(&path, &json!({"name": "By support"}));
    let reply = overtaken(&world, &change, 1, patch.bearer(&bearer).send()).await;
    reply.problem(401, "token_revoked");
}

/// Changes of an operator's account: the request of an owner, and the role to go back to.
#[actix_web::test]
async fn changes_of_an_operator_end_the_accesses_in_every_tenant() {
    let world = World::new().await;
    let (acme, globex) = (&world.acme, &world.globex);
    let owner = world.operator("olga@platform.example").await;
    support(&world).await;
    let operators = get(&world, &owner, "/api/v1/admin/operators").await.json();
    let mut all = operators["data"].as_array().unwrap().iter();
    let operator = all.find(|one| one["email"] == SAM).unwrap()["id"].clone();
    let path = format!("/api/v1/admin/operators/{}", operator.as_str().unwrap());
    let patch = async |body: Value| {
        let request = world.client.patch(&path, &body).bearer(&owner);
        request.await.expect(200);
    };
    let mut password = PASSWORD.to_owned();
    for change in [
        "owner",
        "billing",
        "deactivate",
        "end-sessions",
        "own-password",
        "password",
    ] {
        let sam = login(&world, SAM, &password).await;
        let (id, bearer) = granted(&world, &sam, acme, "write").await;
        let pending = ask(&world, &sam, globex, "read").await;
        get(&world, &bearer, "/api/v1/tasks").await.expect(200);
        let begun = begun(&world, &bearer).await;
        match change {
            "deactivate" => {
                patch(json!({"is_active": false})).await;
                patch(json!({"is_active": true})).await;
            }
            "end-sessions" => {
                post(&world, &owner, &format!("{path}/end-sessions"), json!({}))
                    .await
                    .expect(204);
            }
            "own-password" => {
                let body = json!({"current_password": password, "new_password": "a staple of batteries"});
                post(&world, &sam, "/api/v1/admin/change-password", body)
                    .await
                    .expect(200);
                "a staple of batteries".clone_into(&mut password);
            }
            "password" => {
                let reset = format!("{path}/reset-password");
                let reset = post(&world, &owner, &reset, json!({})).await.expect(200).json();
                reset["password"].as_str().unwrap().clone_into(&mut password);
            }
            role => {
                patch(json!({"role": role})).await;
                patch(json!({"role": "support"})).await;
            }
        }
        assert!(is_ended(&create(&begun).await), "{change}");
        get(&world, &bearer, "/api/v1/tasks")
            .await
            .problem(401, "token_revoked");
        let sam = login(&world, SAM, &password).await;
        token(&world, &sam, &id).await.problem(409, "conflict");
        for (tenant, id) in [(acme, &id), (globex, &pending)] {
            assert_eq!(status(&world, tenant, id).await, "ended", "{change}");
            let last = ends(&world, tenant).await.pop();
            assert_eq!(last, Some((json!(id), json!("operator_changed"))), "{change}");
        }
        decide(&world, globex, &pending, "approve")
            .await
            .problem(409, "conflict");
    }
    let events = world.operator_events().await;
    let ended = events
        .iter()
        .filter(|(_, row)| row["details"]["support_accesses_ended"] == 2);
    assert_eq!(ended.count(), 6);
    // A change of the name ends none.
    let sam = login(&world, SAM, &password).await;
    let (_, bearer) = granted(&world, &sam, acme, "read").await;
    patch(json!({"full_name": "Sam S."})).await;
    get(&world, &bearer, "/api/v1/tasks").await.expect(200);
}

/// The server was killed between the change of the operator and the entries.
#[actix_web::test]
async fn upkeep_logs_ends_that_have_no_entry() {
    let world = World::new().await;
    let sam = support(&world).await;
    let (id, _) = granted(&world, &sam, &world.acme, "read").await;
    world
        .sql("UPDATE support_accesses SET status = 'ended', ended_at = now(), end_unlogged = true")
        .await;
    for _ in 0..2 {
        keep(&world, &world.globex).await;
        keep(&world, &world.acme).await;
        assert_eq!(
            ends(&world, &world.acme).await,
            [(json!(id), json!("operator_changed"))]
        );
    }
    assert!(ends(&world, &world.globex).await.is_empty());
}

/// An access that was stored while its operator was deactivated is in force at no time.
#[actix_web::test]
async fn access_of_former_tokens_is_not_in_force() {
    let world = World::new().await;
    let sam = support(&world).await;
    let (id, bearer) = granted(&world, &sam, &world.acme, "read").await;
    world
        .sql("UPDATE support_accesses SET operator_epoch = operator_epoch - 1")
        .await;
    get(&world, &bearer, "/api/v1/tasks")
        .await
        .problem(401, "token_revoked");
    token(&world, &sam, &id).await.problem(409, "conflict");
}

#[actix_web::test]
async fn access_ends_with_the_admin_who_approved_it() {
    let world = World::new().await;
    let acme = &world.acme;
    let sam = support(&world).await;
    let admin = world.second_admin().await;
    let user = format!("/api/v1/users/{}", admin.id);
    let restore = format!(
        "UPDATE users SET role = 'admin', is_active = true, deleted_at = NULL WHERE id = '{}'",
        admin.id
    );
    for change in ["role", "is_active", "delete", "behind"] {
        let second = world
            .login("acme", &admin.email, PASSWORD)
            .await
            .expect(200)
            .json();
        let second = second["access_token"].as_str().unwrap();
        let id = ask(&world, &sam, acme, "write").await;
        post(&world, second, &format!("{OWN}/{id}/approve"), json!({}))
            .await
            .expect(200);
        let given = token(&world, &sam, &id).await.expect(200).json();
        let bearer = given["access_token"].as_str().unwrap();
        let begun = begun(&world, bearer).await;
        create(&begun).await.unwrap();
        match change {
            "role" => {
                let patch = world.patch(&acme.admin, &user, &json!({"role": "member"}));
                patch.await.expect(200);
            }
            "is_active" => {
                let patch = world.patch(&acme.admin, &user, &json!({"is_active": false}));
                patch.await.expect(200);
            }
            "delete" => {
                let delete = world.client.delete(&user).bearer(&acme.admin.access_token);
                delete.await.expect(204);
            }
            _ => {
                world
                    .sql(format!(
                        "UPDATE users SET role = 'member' WHERE id = '{}'",
                        admin.id
                    ))
                    .await;
            }
        }
        assert!(is_ended(&create(&begun).await), "{change}");
        get(&world, bearer, "/api/v1/tasks")
            .await
            .problem(401, "token_revoked");
        keep(&world, acme).await;
        assert_eq!(status(&world, acme, &id).await, "ended", "{change}");
        assert_eq!(
            ends(&world, acme).await.pop(),
            Some((json!(id), json!("approver_left"))),
            "{change}"
        );
        world.sql(restore.clone()).await;
        world.outlive_the_cache();
        get(&world, bearer, "/api/v1/tasks")
            .await
            .problem(401, "token_revoked");
    }
}

#[actix_web::test]
async fn reads_are_preapproved_only_when_the_admins_get_a_mail() {
    let world = World::new().await;
    let acme = &world.acme;
    let sam = support(&world).await;
    let policy = json!({"preapprove_support_read": true});
    let patched = world.patch(&acme.admin, "/api/v1/security/policy", &policy);
    patched.await.expect(200);
    let mails = "SELECT count(*) FROM jobs WHERE kind = 'account.security_notice'";
    let most = i64::from(SecurityNotice::MOST_OF_OPERATOR);
    let before = count(&world, mails).await;
    for number in 1..=most {
        let asked = post(&world, &sam, ADMIN, asks(acme, "read"))
            .await
            .expect(202)
            .json();
        assert_eq!(asked["status"], "active", "{number}");
        assert_eq!(count(&world, mails).await, before + number);
        let path = format!("{ADMIN}/{}/withdraw", asked["id"].as_str().unwrap());
        post(&world, &sam, &path, json!({})).await.expect(200);
    }
    let asked = post(&world, &sam, ADMIN, asks(acme, "read"))
        .await
        .expect(202)
        .json();
    assert_eq!(
        (&asked["status"], &asked["preapproved"], &asked["expires_at"]),
        (&json!("pending"), &json!(false), &Value::Null)
    );
    assert_eq!(
        count(&world, mails).await,
        before + most + 1,
        "the admins are asked"
    );
    token(&world, &sam, asked["id"].as_str().unwrap())
        .await
        .problem(409, "conflict");
    // Nobody silences another operator.
    let olga = world.operator("olga@platform.example").await;
    let asked = post(&world, &olga, ADMIN, asks(acme, "read"))
        .await
        .expect(202)
        .json();
    assert_eq!(asked["status"], "active");
    assert_eq!(count(&world, mails).await, before + most + 2);
    // A day later there are mails again.
    world.clock.advance(Duration::hours(25));
    let sam = login(&world, SAM, PASSWORD).await;
    let asked = post(&world, &sam, ADMIN, asks(acme, "read"))
        .await
        .expect(202)
        .json();
    assert_eq!(asked["status"], "active");
}

#[actix_web::test]
async fn refused_requests_of_an_operator_are_recorded() {
    let options = Options::default();
    let http = HttpConfig {
        trust_forwarded_for: true,
        ..options.http
    };
    let world = World::with(Options { http, ..options }).await;
    let (acme, globex) = (&world.acme, &world.globex);
    let sam = support(&world).await;
    let (id, bearer) = granted(&world, &sam, acme, "read").await;
    let expires_at = world.app.ports.clock.now() + Duration::days(30);
    let key =
        json!({"name": "Robot", "scopes": ["tasks.read"], "service_account": true, "expires_at": expires_at});
    let key = world
        .post(&acme.admin, "/api/v1/api-keys", &key)
        .await
        .expect(201)
        .json();
    let key = key["key"].as_str().unwrap().to_owned();
    // Neither is a user.
    for credential in [&key, &bearer, &bearer] {
        get(&world, credential, "/api/v1/tasks")
            .header("X-Tenant-ID", globex.id.to_string())
            .await
            .problem(403, "tenant_mismatch");
    }
    let policy = json!({"allowed_networks": ["203.0.113.0/24"]});
    let patched = world.patch(&acme.admin, "/api/v1/security/policy", &policy);
    patched.header("X-Forwarded-For", "203.0.113.7").await.expect(200);
    let outside = |path: &str| get(&world, &bearer, path).header("X-Forwarded-For", "192.0.2.1");
    outside("/api/v1/projects").await.problem(403, "forbidden");
    outside("/api/v1/branding").await.problem(403, "forbidden");
    let uses = format!("{OWN}/{id}/uses");
    let uses = world
        .get(&acme.admin, &uses)
        .header("X-Forwarded-For", "203.0.113.7");
    let uses = uses.await.expect(200).json();
    let mut uses: Vec<_> = uses["data"].as_array().unwrap().iter().collect();
    uses.sort_by_key(|one| one["operation"].as_str().unwrap().to_owned());
    let uses: Vec<_> = uses
        .iter()
        .map(|one| (&one["operation"], &one["requests"]))
        .collect();
    assert_eq!(
        uses,
        [
            (&json!("GET /api/v1/branding"), &json!(1)),
            (&json!("GET /api/v1/projects"), &json!(1)),
            (&json!("GET /api/v1/tasks"), &json!(2)),
        ]
    );
    for action in ["tenant.mismatch", "network.refused"] {
        let entries = logged(&world, acme, action).await;
        let of_operator: Vec<_> = entries
            .iter()
            .filter(|row| row["after"]["support_access_id"] == json!(id))
            .collect();
        assert_eq!(of_operator.len(), 1, "{action}: {entries:?}");
        assert!(of_operator[0]["after"]["operator_id"].is_string(), "{action}");
    }
    assert_eq!(logged(&world, acme, "tenant.mismatch").await.len(), 2);
}

#[actix_web::test]
async fn old_accesses_are_deleted_with_their_uses() {
    let world = World::new().await;
    let acme = &world.acme;
    let sam = support(&world).await;
    let (_, bearer) = granted(&world, &sam, acme, "read").await;
    get(&world, &bearer, "/api/v1/tasks").await.expect(200);
    let (_, elsewhere) = granted(&world, &sam, &world.globex, "read").await;
    get(&world, &elsewhere, "/api/v1/tasks").await.expect(200);
    let rows = "SELECT (SELECT count(*) FROM support_accesses) + (SELECT count(*) FROM support_access_uses)";
    keep(&world, acme).await;
    assert_eq!(count(&world, rows).await, 4);
    // `pro` keeps the log for 730 days.
    world.clock.advance(Duration::days(740));
    keep(&world, acme).await;
    assert_eq!(count(&world, rows).await, 2, "those of the other tenant are left");
}

#[actix_web::test]
async fn random_ids_leave_a_bounded_record() {
    let world = World::new().await;
    let acme = &world.acme;
    let sam = support(&world).await;
    let (id, bearer) = granted(&world, &sam, acme, "read").await;
    let task = format!("/api/v1/tasks/{}", acme.task);
    get(&world, &bearer, &task).await.expect(200);
    world
        .sql(format!(
            "INSERT INTO support_access_uses (tenant_id, id, created_at, support_access_id, operation, entity, requests, last_at) \
             SELECT '{}', gen_random_uuid(), now(), '{id}', 'GET /api/v1/tasks/{{id}}', n::text, 1, now() \
             FROM generate_series(2, {MOST_USES}) n",
            acme.id
        ))
        .await;
    let foreign = format!("/api/v1/tasks/{}", world.globex.task);
    for path in [&foreign, &foreign, &format!("/api/v1/projects/{}", acme.project)] {
        get(&world, &bearer, path).await;
    }
    get(&world, &bearer, &task).await.expect(200);
    let kinds = count(&world, "SELECT count(*) FROM support_access_uses").await;
    assert_eq!(kinds, i64::from(MOST_USES) + 1);
    let sum = "SELECT sum(requests)::bigint FROM support_access_uses WHERE operation = 'further'";
    assert_eq!(count(&world, sum).await, 3);
    assert_eq!(
        logged(&world, acme, "support_access.used").await.len(),
        2,
        "one for those beyond"
    );
    let any = world.client.request("BREW".parse().unwrap(), "/api/v1/tasks");
    any.bearer(&bearer).await;
    assert_eq!(
        count(
            &world,
            "SELECT count(*) FROM support_access_uses WHERE operation LIKE 'BREW%'"
        )
        .await,
        0
    );
}

#[actix_web::test]
async fn support_sees_the_settings_that_every_user_sees() {
    let world = World::new().await;
    let acme = &world.acme;
    let sam = support(&world).await;
    let (_, bearer) = granted(&world, &sam, acme, "write").await;
    let settings = "/api/v1/tenant/settings";
    let seen = get(&world, &bearer, settings).await.expect(200).json();
    let of_viewer = world.get(&acme.viewer, settings).await.expect(200).json();
    let of_admin = world.get(&acme.admin, settings).await.expect(200).json();
    assert_eq!(seen, of_viewer);
    assert_ne!(seen, of_admin);
    for path in ["/api/v1/security/policy", "/api/v1/tenant/settings/versions"] {
        get(&world, &bearer, path).await.problem(403, "forbidden");
    }
}
