use tenantry_migration::{Migrator, migration_names, pending, up};

use crate::support::{A, B, Database, code, names, run, run_in};

const MIGRATION: &str = "m20261128_000060_tenant_names";

const NAMES: &str = "SELECT format('%s %s', name, of_tenant) FROM tenant_names ORDER BY name";

/// A database as it was before there were names, with two tenants.
async fn before(first: (&str, &str), second: (&str, &str)) -> Database {
    let database = Database::empty().await;
    let steps = migration_names::<Migrator>()
        .iter()
        .position(|name| name == MIGRATION)
        .unwrap();
    let steps = u32::try_from(steps).unwrap();
    up(&database.owner_url(), Some(steps)).await.unwrap();
    let mut app = database.app().await;
    for (tenant, (slug, subdomain)) in [(A, first), (B, second)] {
        run_in(&mut app, tenant, &insert(&tenant.to_string(), slug, subdomain))
            .await
            .unwrap();
    }
    database
}

fn insert(tenant: &str, slug: &str, subdomain: &str) -> String {
    format!(
        "INSERT INTO tenants (id, name, slug, subdomain, plan, status, settings, created_at, updated_at, version)
         VALUES ('{tenant}', 'T', '{slug}', '{subdomain}', 'free', 'active', '{{}}', now(), now(), 1)"
    )
}

#[tokio::test]
async fn names_of_existing_tenants_are_taken_over() {
    let database = before(("aaa", "aaa"), ("bbb", "b-shop")).await;
    up(&database.owner_url(), None).await.unwrap();
    let expected = [format!("aaa {A}"), format!("b-shop {B}"), format!("bbb {B}")];
    assert_eq!(names(&mut database.platform().await, NAMES).await, expected);
}

#[tokio::test]
async fn a_name_of_two_tenants_stops_the_migration_and_is_named() {
    let database = before(("aaa", "a-shop"), ("bbb", "aaa")).await;
    let error = up(&database.owner_url(), None).await.unwrap_err().to_string();
    let expected = format!("aaa is the slug of tenant {A} and the subdomain of tenant {B}");
    assert!(error.contains(&expected) && !error.contains('\n'), "{error}");
    assert!(
        pending(&database.owner_url())
            .await
            .unwrap()
            .contains(&MIGRATION.to_owned())
    );
    let mut app = database.app().await;
    run_in(&mut app, B, "UPDATE tenants SET subdomain = NULL")
        .await
        .unwrap();
    up(&database.owner_url(), None).await.unwrap();
    let expected = [format!("a-shop {A}"), format!("aaa {A}"), format!("bbb {B}")];
    assert_eq!(names(&mut database.platform().await, NAMES).await, expected);
}

#[tokio::test]
async fn names_are_kept_by_the_database_and_out_of_reach_of_the_runtime_role() {
    let database = Database::populated().await;
    let mut app = database.app().await;
    for sql in [
        "SELECT count(*) FROM tenant_names",
        "INSERT INTO tenant_names (name, of_tenant) VALUES ('mine', current_setting('app.current_tenant')::uuid)",
        "UPDATE tenant_names SET released_at = NULL",
        "DELETE FROM tenant_names",
        "SELECT tenant_names_keep()",
    ] {
        let refused = code(run_in(&mut app, A, sql).await);
        assert!(["42501", "0A000"].contains(&refused.as_str()), "{sql}: {refused}");
    }
    // What another tenant has, for whichever use, is taken: said as the unique keys of `tenants` say it.
    run_in(&mut app, A, "UPDATE tenants SET subdomain = 'a-shop'")
        .await
        .unwrap();
    for taken in ["bbb", "a-shop", "aaa"] {
        let sql = format!("UPDATE tenants SET subdomain = '{taken}'");
        let refused = run_in(&mut app, B, &sql).await;
        if taken == "bbb" {
            refused.unwrap();
        } else {
            assert_eq!(code(refused), "23505", "{taken}");
        }
    }
    run_in(&mut app, A, "UPDATE tenants SET subdomain = NULL")
        .await
        .unwrap();
    assert_eq!(
        code(run_in(&mut app, B, "UPDATE tenants SET subdomain = 'a-shop'").await),
        "23505"
    );
    let mut platform = database.platform().await;
    for sql in [
        "INSERT INTO tenant_names VALUES ('mine', gen_random_uuid())",
        "UPDATE tenant_names SET name = 'x'",
    ] {
        assert_eq!(code(run(&mut platform, sql).await), "42501", "{sql}");
    }
    let free = "DELETE FROM tenant_names WHERE released_at IS NOT NULL";
    assert_eq!(run(&mut platform, free).await.unwrap(), 1);
    run_in(&mut app, B, "UPDATE tenants SET subdomain = 'a-shop'")
        .await
        .unwrap();
}
