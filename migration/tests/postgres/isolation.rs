use crate::support::{A, B, Database, code, count_in, run, run_in, value};

const TABLES: [&str; 14] = [
    "tenants",
    "users",
    "refresh_sessions",
    "projects",
    "project_members",
    "tasks",
    "resources",
    "resource_versions",
    "audit_events",
    "jobs",
    "idempotency_keys",
    "tenant_settings",
    "tenant_setting_versions",
    "brandings",
];

const READ_WITH_A_REASON: [&str; 4] = ["users", "projects", "tasks", "audit_events"];

const APPEND_ONLY: [&str; 3] = ["resource_versions", "audit_events", "tenant_setting_versions"];

const USER: &str = "INSERT INTO users (tenant_id, id, email, full_name, role, is_active, email_verified,
    password_hash, created_at, updated_at, version)
    VALUES ('{tenant}', gen_random_uuid(), 'new@example.com', 'N', 'viewer', true, true, 'x', now(), now(), 1)";

#[tokio::test]
async fn a_tenant_sees_its_own_rows_only() {
    let database = Database::populated().await;
    let mut app = database.app().await;
    for table in TABLES {
        let (all, column) = (format!("SELECT count(*) FROM {table}"), tenant_column(table));
        assert_eq!(count_in(&mut app, A, &all).await, 1, "{table}");
        let foreign = format!("{all} WHERE {column} <> '{A}'");
        assert_eq!(count_in(&mut app, A, &foreign).await, 0, "{table}");
    }
}

#[tokio::test]
async fn without_a_tenant_there_are_no_rows() {
    let database = Database::populated().await;
    let mut app = database.app().await;
    let mut used = database.app().await;
    run_in(&mut used, A, "SELECT").await.unwrap();
    assert_eq!(
        value::<String>(&mut used, "SELECT current_setting('app.current_tenant', true)").await,
        ""
    );
    for table in TABLES {
        let all = format!("SELECT count(*) FROM {table}");
        assert_eq!(value::<i64>(&mut app, &all).await, 0, "{table}");
        assert_eq!(
            value::<i64>(&mut used, &all).await,
            0,
            "{table} after a transaction with a tenant"
        );
    }
    let insert = USER.replace("{tenant}", &A.to_string());
    assert_eq!(code(run(&mut app, &insert).await), "42501");
    assert_eq!(code(run(&mut used, &insert).await), "42501");
}

#[tokio::test]
async fn rows_of_another_tenant_are_not_written() {
    let database = Database::populated().await;
    let mut app = database.app().await;
    let insert = USER.replace("{tenant}", &B.to_string());
    assert_eq!(code(run_in(&mut app, A, &insert).await), "42501");
    let give_away = format!("UPDATE tasks SET tenant_id = '{B}', id = gen_random_uuid()");
    assert_eq!(code(run_in(&mut app, A, &give_away).await), "42501");
    for table in TABLES.into_iter().filter(|table| !APPEND_ONLY.contains(table)) {
        let column = tenant_column(table);
        let update = format!("UPDATE {table} SET created_at = now() WHERE {column} = '{B}'");
        assert_eq!(run_in(&mut app, A, &update).await.unwrap(), 0, "{table}");
        let update = format!("UPDATE {table} SET created_at = now()");
        assert_eq!(run_in(&mut app, A, &update).await.unwrap(), 1, "{table}");
    }
    assert_eq!(
        run_in(&mut app, A, "DELETE FROM refresh_sessions").await.unwrap(),
        1
    );
    assert_eq!(
        count_in(&mut app, B, "SELECT count(*) FROM refresh_sessions").await,
        1
    );
}

#[tokio::test]
async fn references_stay_within_the_tenant() {
    let database = Database::populated().await;
    let mut app = database.app().await;
    let user = "00000000-0000-0000-0000-0000000000ff";
    let only_in_b = USER
        .replace("{tenant}", &B.to_string())
        .replace("gen_random_uuid()", &format!("'{user}'"));
    run_in(&mut app, B, &only_in_b).await.unwrap();
    let assign = format!("UPDATE tasks SET assignee_id = '{user}'");
    assert_eq!(code(run_in(&mut app, A, &assign).await), "23503");
    assert_eq!(run_in(&mut app, B, &assign).await.unwrap(), 1);
}

#[tokio::test]
async fn keys_are_unique_within_the_tenant_only() {
    let database = Database::populated().await;
    let mut app = database.app().await;
    let again = USER.replace("{tenant}", &A.to_string()).replace("new@", "ada@");
    let error = run_in(&mut app, A, &again).await.unwrap_err();
    assert_eq!(
        error.as_database_error().unwrap().constraint(),
        Some("users_email_key")
    );
    run_in(&mut app, A, "UPDATE users SET deleted_at = now()")
        .await
        .unwrap();
    run_in(&mut app, A, &again).await.unwrap();
}

#[tokio::test]
async fn deleting_stays_within_the_tenant() {
    let database = Database::populated().await;
    let mut app = database.app().await;
    let versions = "SELECT count(*) FROM resource_versions";
    assert_eq!(run_in(&mut app, A, "DELETE FROM resources").await.unwrap(), 1);
    assert_eq!(count_in(&mut app, A, versions).await, 0);
    assert_eq!(count_in(&mut app, B, versions).await, 1);
    // 23001 since PostgreSQL 18.
    let refused = code(run_in(&mut app, A, "DELETE FROM projects").await);
    assert!(["23503", "23001"].contains(&refused.as_str()), "{refused}");
}

#[tokio::test]
async fn what_nobody_needs_is_refused() {
    let database = Database::populated().await;
    let mut app = database.app().await;
    for table in TABLES {
        assert_eq!(
            code(run_in(&mut app, A, &format!("TRUNCATE {table} CASCADE")).await),
            "42501",
            "{table}"
        );
        let trigger = format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY");
        assert_eq!(code(run_in(&mut app, A, &trigger).await), "42501", "{table}");
        let all = format!("SET LOCAL row_security = off; SELECT count(*) FROM {table}");
        assert_eq!(code(run_in(&mut app, A, &all).await), "42501", "{table}");
    }
    for table in APPEND_ONLY {
        let update = format!("UPDATE {table} SET created_at = now()");
        assert_eq!(code(run_in(&mut app, A, &update).await), "42501", "{table}");
        assert_eq!(
            code(run_in(&mut app, A, &format!("DELETE FROM {table}")).await),
            "42501",
            "{table}"
        );
    }
    assert_eq!(code(run_in(&mut app, A, "DELETE FROM tenants").await), "42501");
    for sql in [
        "CREATE TABLE x ()",
        "CREATE TEMP TABLE x ()",
        "SET ROLE tenantry_owner",
        "SET ROLE tenantry_platform",
    ] {
        assert_eq!(code(run(&mut app, sql).await), "42501", "{sql}");
    }
    assert_eq!(code(run(&mut app, "DELETE FROM seaql_migrations").await), "42501");
}

/// But for the rows that its function erases where the runtime role may not: those of the tenant that is set.
#[tokio::test]
async fn the_owner_sees_nothing_but_what_a_purge_erases() {
    let database = Database::populated().await;
    let mut owner = database.owner().await;
    for table in TABLES {
        let all = format!("SELECT count(*) FROM {table}");
        assert_eq!(
            value::<i64>(&mut owner, &all).await,
            0,
            "{table} without a tenant"
        );
        let column = if table == "tenants" { "id" } else { "tenant_id" };
        let others = format!("{all} WHERE {column} <> '{A}'");
        assert_eq!(
            count_in(&mut owner, A, &others).await,
            0,
            "{table} of another tenant"
        );
        let erased = [
            "tenants",
            "resource_versions",
            "audit_events",
            "tenant_setting_versions",
        ];
        if !erased.contains(&table) {
            assert_eq!(count_in(&mut owner, A, &all).await, 0, "{table}");
        }
    }
    assert_eq!(
        run_in(&mut owner, A, "UPDATE tasks SET title = 'x'")
            .await
            .unwrap(),
        0
    );
}

#[tokio::test]
async fn operators_see_tenants_and_nothing_of_them() {
    let database = Database::populated().await;
    let mut platform = database.platform().await;
    assert_eq!(
        value::<i64>(&mut platform, "SELECT count(*) FROM tenants").await,
        2
    );
    let suspend = "UPDATE tenants SET status = 'suspended', updated_at = now(), version = version + 1";
    assert_eq!(run(&mut platform, suspend).await.unwrap(), 2);
    assert_eq!(
        code(run(&mut platform, "UPDATE tenants SET slug = 'other'").await),
        "42501"
    );
    assert_eq!(code(run(&mut platform, "DELETE FROM tenants").await), "42501");
    // What operators read with a reason shows no row without the record of it.
    for table in READ_WITH_A_REASON {
        let all = format!("SELECT count(*) FROM {table}");
        assert_eq!(value::<i64>(&mut platform, &all).await, 0, "{table}");
        let whole = format!("SELECT * FROM {table}");
        assert_eq!(code(run(&mut platform, &whole).await), "42501", "{table}");
    }
    // Of jobs they see that there are some: the next test.
    let closed = |table: &&str| *table != "jobs" && !READ_WITH_A_REASON.contains(table);
    for table in TABLES.into_iter().skip(1).filter(closed) {
        let all = format!("SELECT count(*) FROM {table}");
        assert_eq!(code(run_in(&mut platform, A, &all).await), "42501", "{table}");
    }
}

#[tokio::test]
async fn the_platform_leases_jobs_and_never_reads_them() {
    let database = Database::populated().await;
    let mut platform = database.platform().await;
    let lease =
        "UPDATE jobs SET state = 'running', lease_id = gen_random_uuid(), lease_until = now(), worker = 'w'";
    assert_eq!(run(&mut platform, lease).await.unwrap(), 2);
    for sql in [
        "SELECT payload FROM jobs",
        "SELECT * FROM jobs",
        "UPDATE jobs SET payload = '{}'",
        "UPDATE jobs SET tenant_id = gen_random_uuid()",
        "UPDATE jobs SET state = 'done', finished_at = now(), lease_id = NULL, lease_until = NULL, worker = NULL",
        "UPDATE jobs SET state = 'dead', finished_at = now(), lease_id = NULL, lease_until = NULL, worker = NULL",
        "INSERT INTO jobs (id) VALUES (gen_random_uuid())",
        "DELETE FROM jobs",
    ] {
        assert_eq!(code(run(&mut platform, sql).await), "42501", "{sql}");
    }
}

#[tokio::test]
async fn jobs_of_the_system_are_out_of_reach_of_the_runtime_role() {
    let database = Database::populated().await;
    let insert =
        "INSERT INTO system_jobs (id, created_at, kind, schema_version, payload, state, run_at, attempts,
        max_attempts) VALUES (gen_random_uuid(), now(), 'k', 1, '{}', 'queued', now(), 0, 1)";
    assert_eq!(run(&mut database.platform().await, insert).await.unwrap(), 1);
    let mut app = database.app().await;
    for sql in [
        insert,
        "SELECT count(*) FROM system_jobs",
        "UPDATE system_jobs SET kind = 'other'",
        "DELETE FROM system_jobs",
    ] {
        assert_eq!(code(run_in(&mut app, A, sql).await), "42501", "{sql}");
    }
}

#[tokio::test]
async fn the_payment_providers_inbox_is_out_of_reach_of_the_runtime_role() {
    let database = Database::populated().await;
    let event = "INSERT INTO provider_events (id, kind, created_at, received_at, state, attempts)
        VALUES ('evt_1', 'invoice.paid', now(), now(), 'pending', 0)";
    let customer = "INSERT INTO provider_customers (of_tenant, customer_ref, created_at)
        SELECT id, 'cus_1', now() FROM tenants ORDER BY id LIMIT 1";
    let watermark = "INSERT INTO provider_watermark (looked_until) VALUES (now())";
    let mut platform = database.platform().await;
    for sql in [
        event,
        customer,
        watermark,
        "UPDATE provider_events SET state = 'done', settled_at = now()",
        "UPDATE provider_customers SET removed_at = now()",
        "UPDATE provider_customers SET customer_ref = 'cus_2', former_refs = array_append(former_refs, customer_ref)",
    ] {
        assert_eq!(run(&mut platform, sql).await.unwrap(), 1, "{sql}");
    }
    // Whose customer it is, and what an event said, is for good; and nothing of an account is the platform's to see.
    for sql in [
        "UPDATE provider_customers SET of_tenant = (SELECT id FROM tenants ORDER BY id DESC LIMIT 1)",
        "DELETE FROM provider_customers",
        "UPDATE provider_events SET customer_ref = 'cus_2'",
        "DELETE FROM provider_events",
        "SELECT count(*) FROM billing_accounts",
        "SELECT count(*) FROM invoices",
        "SELECT count(*) FROM meter_outbox",
    ] {
        assert_eq!(code(run(&mut platform, sql).await), "42501", "{sql}");
    }
    let mut app = database.app().await;
    for sql in [
        event,
        customer,
        watermark,
        "SELECT count(*) FROM provider_events",
        "SELECT count(*) FROM provider_customers",
        "SELECT count(*) FROM provider_watermark",
        "UPDATE provider_events SET state = 'done'",
        "DELETE FROM provider_customers",
    ] {
        assert_eq!(code(run_in(&mut app, A, sql).await), "42501", "{sql}");
    }
}

#[tokio::test]
async fn operators_are_out_of_reach_of_the_runtime_role_and_their_audit_is_append_only() {
    let database = Database::populated().await;
    let operator =
        "INSERT INTO operators (id, email, full_name, password_hash, role, is_active, created_at, updated_at)
        VALUES (gen_random_uuid(), 'o@o.example', 'O', 'h', 'support', true, now(), now())";
    let event = "INSERT INTO operator_events (id, at, action, request_id, details)
        VALUES (gen_random_uuid(), now(), 'a', 'r', '{}')";
    let mut platform = database.platform().await;
    assert_eq!(run(&mut platform, operator).await.unwrap(), 1);
    assert_eq!(run(&mut platform, event).await.unwrap(), 1);
    let deactivate = "UPDATE operators SET is_active = false";
    assert_eq!(run(&mut platform, deactivate).await.unwrap(), 1);
    for sql in [
        "UPDATE operator_events SET action = 'b'",
        "DELETE FROM operator_events",
        "TRUNCATE operator_events",
        "DELETE FROM operators",
        "UPDATE operators SET email = 'p@o.example'",
    ] {
        assert_eq!(code(run(&mut platform, sql).await), "42501", "{sql}");
    }
    let mut app = database.app().await;
    for sql in [
        operator,
        event,
        deactivate,
        "SELECT count(*) FROM operators",
        "SELECT count(*) FROM operator_events",
        "SELECT count(*) FROM operator_totp_factors",
        "SELECT count(*) FROM operator_recovery_codes",
        "SELECT count(*) FROM operator_lockouts",
    ] {
        assert_eq!(code(run_in(&mut app, A, sql).await), "42501", "{sql}");
    }
}

#[tokio::test]
async fn definitions_of_flags_are_out_of_reach_of_the_runtime_role_and_versions_are_append_only() {
    let database = Database::populated().await;
    let flag = "INSERT INTO flags VALUES ('f', '{}', now(), now(), 1)";
    let version = "INSERT INTO flag_versions VALUES ('f', 1, '{}', NULL, now())";
    let segment = "INSERT INTO segments VALUES ('s', '{}', now(), now(), 1)";
    let gone = "INSERT INTO segment_versions VALUES ('s', 2, NULL, NULL, now())";
    let change = "UPDATE flags SET definition = '{}', version = 2";
    let mut platform = database.platform().await;
    for sql in [flag, version, segment, gone, change, "DELETE FROM segments"] {
        assert_eq!(run(&mut platform, sql).await.unwrap(), 1, "{sql}");
    }
    for sql in [
        "DELETE FROM flags",
        "UPDATE flags SET key = 'g'",
        "UPDATE flag_versions SET definition = '{}'",
        "DELETE FROM flag_versions",
        "UPDATE segment_versions SET definition = '{}'",
        "DELETE FROM segment_versions",
        "TRUNCATE segments",
        "SELECT count(*) FROM flag_overrides",
    ] {
        assert_eq!(code(run(&mut platform, sql).await), "42501", "{sql}");
    }
    let mut app = database.app().await;
    for sql in [
        flag,
        version,
        segment,
        gone,
        change,
        "SELECT count(*) FROM flags",
        "SELECT count(*) FROM flag_versions",
        "SELECT count(*) FROM segments",
        "SELECT count(*) FROM segment_versions",
    ] {
        assert_eq!(code(run_in(&mut app, A, sql).await), "42501", "{sql}");
    }
}

#[tokio::test]
async fn checks_hold() {
    let database = Database::populated().await;
    let mut app = database.app().await;
    for sql in [
        "UPDATE tenants SET slug = 'ab'",
        "UPDATE tenants SET subdomain = '-abc'",
        "UPDATE tenants SET status = 'buried'",
        "UPDATE tenants SET settings = '[]'",
        "UPDATE users SET role = 'owner'",
        "UPDATE users SET version = 0",
        "UPDATE refresh_sessions SET token_hash = 'short'",
        "UPDATE refresh_sessions SET previous_hash = 'short'",
        "UPDATE projects SET view_count = -1",
        "UPDATE projects SET status = 'done'",
        "UPDATE project_members SET role = 'admin'",
        "UPDATE tasks SET priority = 'high '",
        "UPDATE tasks SET status = ''",
        "UPDATE resources SET content = NULL",
        "UPDATE resources SET url = 'https://example.com'",
        "UPDATE jobs SET state = 'lost'",
        "UPDATE jobs SET state = 'running'",
        "UPDATE jobs SET state = 'done'",
        "UPDATE jobs SET attempts = -1",
        "UPDATE jobs SET lease_id = gen_random_uuid(), lease_until = now(), worker = 'w'",
        "UPDATE idempotency_keys SET key = ''",
        "UPDATE idempotency_keys SET key = repeat('k', 256)",
        "UPDATE idempotency_keys SET fingerprint = 'short'",
        "UPDATE idempotency_keys SET role = 'owner'",
        "UPDATE idempotency_keys SET status = 409",
        "UPDATE tenant_settings SET values = '[]'",
        "UPDATE tenant_settings SET secrets = '1'",
        "UPDATE brandings SET primary_color = 'red'",
        "UPDATE brandings SET custom_css = repeat('x', 65537)",
    ] {
        assert_eq!(code(run_in(&mut app, A, sql).await), "23514", "{sql}");
    }
    run_in(&mut app, A, "UPDATE tenants SET subdomain = NULL")
        .await
        .unwrap();
    assert_eq!(count_in(&mut app, A, "SELECT size_bytes FROM resources").await, 5);
    run_in(
        &mut app,
        A,
        "UPDATE resources SET content = NULL, url = 'https://example.com'",
    )
    .await
    .unwrap();
    assert_eq!(count_in(&mut app, A, "SELECT size_bytes FROM resources").await, 0);
}

fn tenant_column(table: &str) -> &'static str {
    if table == "tenants" { "id" } else { "tenant_id" }
}
