use tenantry_migration::{Migrator, down, migration_names, up};

use crate::support::{A, B, Database, code, names, run_in, value};

const MIGRATION: &str = "m20261129_000085_workspaces";

const INDEXED: &str = "SELECT format('%s %s', of_tenant, left(of_user::text, 1)) FROM user_addresses \
                       WHERE address_digest = sha256('ada@example.com') ORDER BY 1";

/// A database as it was before there was an index, with an account of one address in each of two tenants, of which the second is
/// deleted, and accounts that are not to be listed.
async fn before() -> Database {
    let database = Database::empty().await;
    let steps = migration_names::<Migrator>()
        .iter()
        .position(|name| name == MIGRATION)
        .unwrap();
    up(&database.owner_url(), Some(u32::try_from(steps).unwrap()))
        .await
        .unwrap();
    let mut app = database.app().await;
    for (tenant, slug, status) in [(A, "aaa", "active"), (B, "bbb", "deleted")] {
        let tenants = format!(
            "INSERT INTO tenants (id, name, slug, plan, status, settings, created_at, updated_at, version, deleted_at)
             VALUES ('{tenant}', 'T', '{slug}', 'free', '{status}', '{{}}', now(), now(), 1,
                     CASE '{status}' WHEN 'deleted' THEN now() END)"
        );
        run_in(&mut app, tenant, &tenants).await.unwrap();
        for (id, email, is_active, verified, deleted_at) in [
            (1, "ada@example.com", true, true, "NULL"),
            (2, "unverified@example.com", true, false, "NULL"),
            (3, "inactive@example.com", false, true, "NULL"),
            (4, "deleted@example.com", false, true, "now()"),
        ] {
            let users = format!(
                "INSERT INTO users (tenant_id, id, email, full_name, role, is_active, email_verified, password_hash, created_at,
                                    updated_at, deleted_at, version)
                 VALUES ('{tenant}', '{id}0000000-0000-0000-0000-000000000000', '{email}', 'Ada', 'member', {is_active}, {verified}, 'x',
                         now(), now(), {deleted_at}, 1)"
            );
            run_in(&mut app, tenant, &users).await.unwrap();
        }
    }
    database
}

#[tokio::test]
async fn accounts_of_before_are_indexed() {
    let database = before().await;
    up(&database.owner_url(), None).await.unwrap();
    let mut platform = database.platform().await;
    assert_eq!(names(&mut platform, INDEXED).await, [format!("{A} 1")]);
    let all: i64 = value(&mut platform, "SELECT count(*) FROM user_addresses").await;
    assert_eq!(all, 1);
    // The platform role reads, and the database writes.
    let deleted = crate::support::run(&mut platform, "DELETE FROM user_addresses").await;
    assert_eq!(code(deleted), "42501");
}

#[tokio::test]
async fn index_goes_and_comes_with_its_migration() {
    let database = before().await;
    up(&database.owner_url(), None).await.unwrap();
    let mut app = database.app().await;
    let session = "INSERT INTO refresh_sessions (tenant_id, id, user_id, token_hash, created_at, expires_at, methods)
                   SELECT tenant_id, gen_random_uuid(), id, sha256('x'), now(), now(), 16 FROM users WHERE email = 'ada@example.com'";
    run_in(&mut app, A, session).await.unwrap();
    drop(app);
    let steps = migration_names::<Migrator>()
        .iter()
        .rev()
        .position(|name| name == MIGRATION)
        .unwrap();
    let steps = u32::try_from(steps).unwrap() + 1;
    down(&database.owner_url(), Some(steps)).await.unwrap();
    up(&database.owner_url(), None).await.unwrap();
    assert_eq!(
        names(&mut database.platform().await, INDEXED).await,
        [format!("{A} 1")]
    );
}
