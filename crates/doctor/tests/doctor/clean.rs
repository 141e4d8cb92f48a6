use tenantry_doctor::{DoctorError, Options, Outcome, examine};

use tenantry_migration::{APP_ROLE, DEFINER_FUNCTIONS, GLOBAL_TABLES, PLATFORM_ROLE, TENANT_SETTING};

use crate::support::{Database, ROLES, assert_clean, expecting, here, options, run};

#[tokio::test]
async fn tenantrys_own_schema_passes_every_check() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    let report = database.examine(&expecting()).await;
    assert_clean(&report);
    assert!(report.passed());
    assert!(report.tenant_tables >= 9);
    // The tenants themselves obey the rule, by their own id.
    assert_eq!(report.global_tables, GLOBAL_TABLES.len() - 1);
    // A release that is newer than the digests of PostgreSQL's own catalogues may differ from them.
    let idle = report.checks.iter();
    let mut idle = idle.filter(|check| check.outcome == Outcome::NotApplicable && check.id != "SYS005");
    assert!(idle.next().is_none(), "{}", report.to_human());
    assert_eq!(report.role, "tenantry_app");
    assert_eq!(report.other_roles, ["tenantry_platform", "tenantry_owner"]);
    assert_eq!(report.connected_as, "postgres");
    println!("{}", report.to_human());
}

#[tokio::test]
async fn whoever_asks_gets_the_same_answer() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    let options = here(&expecting());
    let mut by_admin = database.examine(&options).await;
    for (user, password) in [
        ("tenantry_app", "app"),
        ("tenantry_platform", "platform"),
        ("tenantry_owner", "owner"),
    ] {
        let report = examine(&mut database.connect(user, password).await, &options)
            .await
            .unwrap();
        assert_clean(&report);
        assert_eq!(report.connected_as, user);
        by_admin.connected_as = user.to_owned();
        assert_eq!(report, by_admin, "{user}");
    }
}

#[tokio::test]
async fn each_role_of_ours_can_be_named() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    for role in ["tenantry_app", "tenantry_platform", "tenantry_owner"] {
        let options = Options {
            runtime_role: Some(role.to_owned()),
            ..expecting()
        };
        assert_clean(&database.examine(&options).await);
    }
}

#[tokio::test]
async fn what_does_not_exist_is_not_vouched_for() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    let mut admin = database.admin().await;
    let told = Options {
        runtime_role: Some("nobody here".to_owned()),
        ..options()
    };
    let error = examine(&mut admin, &told).await.unwrap_err();
    assert!(matches!(error, DoctorError::NoSuchRole { .. }), "{error}");
    let told = Options {
        schemas: vec!["publik".to_owned()],
        ..options()
    };
    let error = examine(&mut admin, &told).await.unwrap_err();
    assert!(matches!(error, DoctorError::NoSuchSchema { .. }), "{error}");
}

#[tokio::test]
async fn a_transaction_of_somebody_elses_is_left_alone() {
    let _roles = ROLES.read().await;
    let database = Database::migrated().await;
    let mut admin = database.admin().await;
    let mut transaction = sqlx::Connection::begin(&mut admin).await.unwrap();
    let error = examine(&mut transaction, &options()).await.unwrap_err();
    assert!(matches!(error, DoctorError::InTransaction), "{error}");
    transaction.commit().await.unwrap();
    // The connection is as it was, and stays usable.
    assert_clean(&examine(&mut admin, &here(&options())).await.unwrap());
    run(&mut admin, "CREATE TABLE written (id int)").await.unwrap();
    let path: String = sqlx::query_scalar("SHOW search_path")
        .fetch_one(&mut admin)
        .await
        .unwrap();
    assert_eq!(path, "\"$user\", public");
}

#[test]
fn the_defaults_are_tenantrys() {
    let options = Options::default();
    assert!(
        GLOBAL_TABLES
            .iter()
            .all(|name| options.global_tables.iter().any(|entry| entry == name))
    );
    assert_eq!(options.allowed_definer_functions, DEFINER_FUNCTIONS);
    assert_eq!(options.setting, TENANT_SETTING);
    assert_eq!(options.platform_roles, [PLATFORM_ROLE]);
    assert_eq!(APP_ROLE, "tenantry_app");
}
