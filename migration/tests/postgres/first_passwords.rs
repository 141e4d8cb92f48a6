use tenantry_migration::{Migrator, down, migration_names, up};

use crate::support::{A, B, Database, names, run_in};

const MIGRATION: &str = "m20261130_000109_first_passwords";

/// An expired first password does not come back with a migration down and up. Others stay as they are.
#[tokio::test]
async fn expired_first_password_ends_on_the_way_down() {
    let database = Database::empty().await;
    up(&database.owner_url(), None).await.unwrap();
    let mut app = database.app().await;
    for (tenant, slug) in [(A, "aaa"), (B, "bbb")] {
        let tenants = format!(
            "INSERT INTO tenants (id, name, slug, plan, status, settings, created_at, updated_at, version)
             VALUES ('{tenant}', 'T', '{slug}', 'free', 'active', '{{}}', now(), now(), 1)"
        );
        run_in(&mut app, tenant, &tenants).await.unwrap();
        for (id, expiry) in [
            (1, "now() - interval '1 day'"),
            (2, "now() + interval '1 day'"),
            (3, "NULL"),
        ] {
            let users = format!(
                "INSERT INTO users (tenant_id, id, email, full_name, role, is_active, email_verified, password_hash, created_at,
                                    updated_at, version, password_expires_at)
                 VALUES ('{tenant}', '{id}0000000-0000-0000-0000-000000000000', 'u{id}@example.com', 'Ada', 'member', true, true, 'x',
                         now(), now(), 1, {expiry})"
            );
            run_in(&mut app, tenant, &users).await.unwrap();
        }
    }
    drop(app);
    let steps = migration_names::<Migrator>()
        .iter()
        .rev()
        .position(|name| name == MIGRATION)
        .unwrap();
    let steps = u32::try_from(steps).unwrap() + 1;
    down(&database.owner_url(), Some(steps)).await.unwrap();
    up(&database.owner_url(), None).await.unwrap();
    let mut admin = database.admin().await;
    let kept = "SELECT left(id::text, 1) FROM users WHERE password_hash = 'x' ORDER BY 1";
    assert_eq!(names(&mut admin, kept).await, ["2", "2", "3", "3"]);
    // A hash of nobody has the lengths that comparing with it needs.
    let ended = "SELECT left(id::text, 1) FROM users WHERE password_hash ~ \
                 '^\\$argon2id\\$v=19\\$m=19456,t=2,p=1\\$[A-Za-z0-9+/]{22}\\$[A-Za-z0-9+/]{43}$'";
    assert_eq!(names(&mut admin, ended).await, ["1", "1"]);
}
