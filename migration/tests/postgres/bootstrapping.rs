use tenantry_migration::{Bootstrap, bootstrap, up};

use crate::support::{Database, cluster, code, connect, names, plan, run, shared, value};

const ROLES: &str =
    "SELECT rolname || ' ' || concat_ws(' ', rolcanlogin, rolsuper, rolcreatedb, rolcreaterole,
    rolbypassrls, rolinherit) FROM pg_roles WHERE rolname LIKE 'tenantry%' ORDER BY 1";

#[tokio::test]
async fn two_at_once_and_then_again() {
    let cluster = cluster().await;
    let first = plan(cluster.admin_url("postgres"), "one");
    let second = plan(cluster.admin_url("template1"), "two");
    let (a, b, c) = tokio::join!(bootstrap(&first), bootstrap(&second), bootstrap(&first));
    a.unwrap();
    b.unwrap();
    c.unwrap();
    bootstrap(&first).await.unwrap();

    let mut admin = connect(&cluster.admin_url("postgres")).await.unwrap();
    let expected = [
        "tenantry_app t f f f f t",
        "tenantry_owner t f f f f f",
        "tenantry_platform t f f f f t",
    ];
    assert_eq!(names(&mut admin, ROLES).await, expected);
    let owners =
        "SELECT datname || ' ' || pg_get_userbyid(datdba) FROM pg_database WHERE datname IN ('one', 'two')
                  ORDER BY 1";
    assert_eq!(
        names(&mut admin, owners).await,
        ["one tenantry_owner", "two tenantry_owner"]
    );
    cluster.stop().await;
}

#[tokio::test]
async fn an_administrator_who_is_no_superuser_is_enough() {
    let cluster = cluster().await;
    let mut admin = connect(&cluster.admin_url("postgres")).await.unwrap();
    run(
        &mut admin,
        "CREATE ROLE hosted LOGIN CREATEROLE CREATEDB PASSWORD 'hosted'",
    )
    .await
    .unwrap();
    run(&mut admin, "CREATE ROLE humble LOGIN PASSWORD 'humble'")
        .await
        .unwrap();
    let database = Database {
        name: "saas".to_owned(),
        port: cluster.port(),
        admin_url: cluster.admin_url("saas"),
    };
    let in_postgres = |user: &str| format!("postgres://{user}:{user}@127.0.0.1:{}/postgres", cluster.port());

    let error = bootstrap(&plan(in_postgres("humble"), "saas"))
        .await
        .unwrap_err()
        .to_string();
    let expected = "humble may not make roles, and role tenantry_owner is missing; role tenantry_app is missing; \
                    role tenantry_platform is missing; database saas is missing";
    assert_eq!(error, expected);

    bootstrap(&plan(in_postgres("hosted"), "saas")).await.unwrap();
    bootstrap(&plan(in_postgres("hosted"), "saas")).await.unwrap();
    assert!(
        !value::<bool>(
            &mut admin,
            "SELECT pg_has_role('hosted', 'tenantry_owner', 'MEMBER')"
        )
        .await
    );
    up(&database.owner_url(), None).await.unwrap();

    let as_owner = Bootstrap {
        admin_url: database.owner_url(),
        ..plan(String::new(), "saas")
    };
    bootstrap(&as_owner).await.unwrap();
    run(&mut admin, "REVOKE tenantry_app FROM tenantry_owner")
        .await
        .unwrap();
    let error = bootstrap(&as_owner).await.unwrap_err().to_string();
    assert!(
        error.contains("tenantry_owner is not a member of tenantry_app"),
        "{error}"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_role_that_is_too_much_is_refused() {
    let cluster = cluster().await;
    let mut admin = connect(&cluster.admin_url("postgres")).await.unwrap();
    run(&mut admin, "CREATE ROLE tenantry_app LOGIN BYPASSRLS CREATEDB")
        .await
        .unwrap();
    let error = bootstrap(&plan(cluster.admin_url("postgres"), "saas"))
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "role tenantry_app exists and is CREATEDB, BYPASSRLS, which it must not be"
    );
    cluster.stop().await;
}

#[tokio::test]
async fn passwords_are_reset_only_when_asked() {
    let cluster = cluster().await;
    let mut plan = plan(cluster.admin_url("postgres"), "saas");
    bootstrap(&plan).await.unwrap();
    let url = |password: &str| {
        format!(
            "postgres://tenantry_app:{password}@127.0.0.1:{}/saas",
            cluster.port()
        )
    };
    plan.passwords.app = "other".to_owned();
    bootstrap(&plan).await.unwrap();
    connect(&url("app")).await.unwrap();
    assert_eq!(code(connect(&url("other")).await), "28P01");
    plan.reset_passwords = true;
    bootstrap(&plan).await.unwrap();
    connect(&url("other")).await.unwrap();
    assert_eq!(code(connect(&url("app")).await), "28P01");
    cluster.stop().await;
}

#[tokio::test]
async fn passwords_stay_out_of_the_servers_log() {
    let cluster = cluster().await;
    let mut admin = connect(&cluster.admin_url("postgres")).await.unwrap();
    run(&mut admin, "ALTER SYSTEM SET log_statement = 'all'")
        .await
        .unwrap();
    run(&mut admin, "ALTER SYSTEM SET log_min_duration_statement = 0")
        .await
        .unwrap();
    run(&mut admin, "SELECT pg_reload_conf()").await.unwrap();
    let mut plan = plan(cluster.admin_url("postgres"), "saas");
    plan.passwords.app = "hunter2".to_owned();
    plan.reset_passwords = true;
    // The second time the passwords are set by ALTER ROLE.
    bootstrap(&plan).await.unwrap();
    bootstrap(&plan).await.unwrap();
    let log = cluster.log().await;
    assert!(
        log.contains("pg_try_advisory_lock"),
        "statements are not in this log at all"
    );
    assert!(!log.contains("hunter2"));
    cluster.stop().await;
}

#[tokio::test]
async fn a_database_that_is_there_is_made_ready() {
    let cluster = shared().await;
    // The roles may or may not be there yet; the database is somebody else's.
    let mut admin = connect(&cluster.admin_url("postgres")).await.unwrap();
    run(&mut admin, "CREATE DATABASE \"some\"\"body's\"")
        .await
        .unwrap();
    bootstrap(&plan(cluster.admin_url("postgres"), "some\"body's"))
        .await
        .unwrap();
    let database = Database {
        name: "some%22body%27s".to_owned(),
        port: cluster.port(),
        admin_url: String::new(),
    };
    up(&database.owner_url(), None).await.unwrap();
    assert_eq!(
        code(run(&mut database.app().await, "CREATE TABLE x ()").await),
        "42501"
    );
}

#[tokio::test]
async fn the_runtime_roles_have_limits_that_operators_may_change() {
    let database = Database::empty().await;
    let shown = "SELECT concat_ws(' ', current_setting('statement_timeout'), current_setting('lock_timeout'),
        current_setting('idle_in_transaction_session_timeout'), current_setting('search_path'))";
    for mut connection in [database.app().await, database.platform().await] {
        assert_eq!(
            value::<String>(&mut connection, shown).await,
            "30s 5s 1min public"
        );
    }
}

#[tokio::test]
async fn a_changed_limit_stays_changed() {
    let cluster = cluster().await;
    let plan = plan(cluster.admin_url("postgres"), "saas");
    bootstrap(&plan).await.unwrap();
    let mut admin = connect(&cluster.admin_url("postgres")).await.unwrap();
    run(&mut admin, "ALTER ROLE tenantry_app SET lock_timeout = '1s'")
        .await
        .unwrap();
    bootstrap(&plan).await.unwrap();
    let mut app = connect(&format!(
        "postgres://tenantry_app:app@127.0.0.1:{}/saas",
        cluster.port()
    ))
    .await
    .unwrap();
    assert_eq!(value::<String>(&mut app, "SHOW lock_timeout").await, "1s");
    cluster.stop().await;
}

#[tokio::test]
async fn nobody_else_gets_in() {
    let database = Database::empty().await;
    let mut admin = database.admin().await;
    run(&mut admin, "CREATE ROLE stranger LOGIN PASSWORD 'stranger'")
        .await
        .unwrap();
    assert_eq!(
        code(connect(&database.url("stranger", "stranger")).await),
        "42501"
    );
}

#[tokio::test]
async fn nonsense_is_refused_before_anything_happens() {
    let nowhere = || plan("postgres://postgres@127.0.0.1:1/postgres".to_owned(), "saas");
    let mut without_password = nowhere();
    without_password.passwords.platform = String::new();
    let error = bootstrap(&without_password).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "the password of tenantry_platform is empty or has a NUL in it"
    );
    let nameless = Bootstrap {
        database: String::new(),
        ..nowhere()
    };
    assert!(
        bootstrap(&nameless)
            .await
            .unwrap_err()
            .to_string()
            .contains("name of the database")
    );
    assert!(!format!("{nameless:?} {:?}", nameless.passwords).contains("wner \\"));
}
