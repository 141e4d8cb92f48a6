use sqlx::PgConnection;
use tenantry_migration::{GLOBAL_TABLES, policy_expression_in_catalogue};

use crate::support::{Database, names, run, value};

#[tokio::test]
async fn every_table_is_global_or_obeys_the_rule() {
    let database = Database::migrated().await;
    let mut owner = database.owner().await;
    let tables = names(
        &mut owner,
        "SELECT relname::text FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace
         AND NOT relispartition ORDER BY 1",
    )
    .await;
    let (global, tenant): (Vec<String>, Vec<String>) = tables
        .into_iter()
        .partition(|table| GLOBAL_TABLES.contains(&table.as_str()));
    assert_eq!(global, GLOBAL_TABLES);
    assert_eq!(tenant.len(), 62);
    for table in &tenant {
        assert_eq!(
            broken_rules(&mut owner, table).await,
            Vec::<String>::new(),
            "{table}"
        );
        policies_hold(&mut owner, table, "tenant_id").await;
    }
    policies_hold(&mut owner, "tenants", "id").await;
}

#[tokio::test]
async fn a_forgotten_table_is_noticed() {
    let database = Database::migrated().await;
    let mut owner = database.owner().await;
    let sql =
        "CREATE TABLE forgotten (id uuid PRIMARY KEY, tenant_id uuid REFERENCES tenants, t uuid UNIQUE);
               GRANT TRUNCATE ON forgotten TO tenantry_app";
    run(&mut owner, sql).await.unwrap();
    let broken = broken_rules(&mut owner, "forgotten").await;
    assert_eq!(
        broken,
        [
            "forgotten_pkey does not begin with tenant_id",
            "forgotten_t_key does not begin with tenant_id",
            "no index on (tenant_id, created_at)",
            "no index on (tenant_id, id)",
            "row-level security is not enabled and forced",
            "tenant_id is not NOT NULL",
            "the runtime role has more than SELECT, INSERT, UPDATE, DELETE",
        ]
    );
}

#[tokio::test]
async fn a_partition_is_reached_through_its_table_alone() {
    let database = Database::migrated().await;
    let mut owner = database.owner().await;
    let made = "SELECT usage_events_partitions(6, 6)";
    assert_eq!(value::<i32>(&mut owner, made).await, 5);
    assert_eq!(value::<i32>(&mut owner, made).await, 0);
    let partitions = "SELECT count(*) FROM pg_class WHERE relispartition AND relkind = 'r'";
    assert_eq!(value::<i64>(&mut owner, partitions).await, 14);
    let open = "SELECT relname::text FROM pg_class c WHERE relispartition AND relkind = 'r' AND (
        NOT (relrowsecurity AND relforcerowsecurity) OR pg_get_userbyid(relowner) <> 'tenantry_owner'
        OR EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid)
        OR EXISTS (SELECT FROM pg_roles r WHERE r.rolname IN ('tenantry_app', 'tenantry_platform')
                   AND has_table_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')))";
    assert_eq!(names(&mut owner, open).await, Vec::<String>::new());
    // Each has what its table has.
    let bare = "SELECT c.relname::text FROM pg_class c WHERE relispartition AND relkind = 'r'
        AND (SELECT count(*) FROM pg_index WHERE indrelid = c.oid) <>
            (SELECT count(*) FROM pg_index WHERE indrelid = 'usage_events'::regclass)";
    assert_eq!(names(&mut owner, bare).await, Vec::<String>::new());
    let run_by = |role: &str| {
        format!("SELECT has_function_privilege('{role}', 'usage_events_partitions(int, int)', 'EXECUTE')")
    };
    assert!(!value::<bool>(&mut owner, &run_by("tenantry_app")).await);
    assert!(value::<bool>(&mut owner, &run_by("tenantry_platform")).await);
    for many in ["(25, 0)", "(0, 25)", "(-1, 0)", "(NULL, 0)"] {
        let outcome = run(&mut owner, &format!("SELECT usage_events_partitions{many}")).await;
        assert!(outcome.is_err(), "{many}");
    }
}

#[tokio::test]
async fn every_reference_within_a_tenant_has_an_index() {
    let database = Database::migrated().await;
    let mut owner = database.owner().await;
    let sql = "SELECT conname::text FROM pg_constraint c
        WHERE contype = 'f' AND connamespace = 'public'::regnamespace AND NOT EXISTS (
            SELECT FROM pg_index i WHERE i.indrelid = c.conrelid
            AND (i.indkey::int2[])[0:cardinality(c.conkey) - 1] = c.conkey
            AND (i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) LIKE '(%_id IS NOT NULL)'))";
    assert_eq!(names(&mut owner, sql).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_constraints_that_use_cases_know_are_there() {
    let database = Database::migrated().await;
    let mut owner = database.owner().await;
    let found = names(
        &mut owner,
        "SELECT relname::text FROM pg_class WHERE relkind = 'i' UNION SELECT conname FROM pg_constraint",
    )
    .await;
    for name in [
        "tenants_slug_key",
        "tenants_subdomain_key",
        "users_email_key",
        "projects_name_key",
        "project_members_member_key",
        "project_members_project_id_fkey",
        "project_members_user_id_fkey",
        "projects_owner_id_fkey",
        "tasks_project_id_fkey",
        "tasks_assignee_id_fkey",
        "resources_project_id_fkey",
        "resources_created_by_fkey",
        "resource_versions_created_by_fkey",
        "jobs_dedupe_key",
        "idempotency_keys_request_key",
        "idempotency_keys_user_id_fkey",
        "usage_keys_key",
    ] {
        assert!(found.iter().any(|one| one == name), "{name}");
    }
}

#[tokio::test]
async fn nothing_is_granted_to_everybody() {
    let database = Database::migrated().await;
    let mut owner = database.owner().await;
    let sql =
        "SELECT relname::text FROM pg_class, aclexplode(relacl) WHERE relnamespace = 'public'::regnamespace
               AND grantee = 0";
    assert_eq!(names(&mut owner, sql).await, Vec::<String>::new());
    run(
        &mut owner,
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    )
    .await
    .unwrap();
    assert!(
        !value::<bool>(
            &mut owner,
            "SELECT has_function_privilege('tenantry_app', 'f()', 'EXECUTE')"
        )
        .await
    );
}

/// What is wrong with a tenant table, policies aside, in alphabetical order.
async fn broken_rules(owner: &mut PgConnection, table: &str) -> Vec<String> {
    names(owner, &RULES.replace("{table}", table)).await
}

const RULES: &str = "
WITH t AS (SELECT * FROM pg_class WHERE oid = 'public.{table}'::regclass),
     keys AS (SELECT i.*, c.relname, (SELECT array_agg(a.attname::text ORDER BY n) FROM
                  unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, n)
                  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum) AS columns
              FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = (SELECT oid FROM t)),
     refs AS (SELECT c.*, (SELECT attname::text FROM pg_attribute a
                  WHERE a.attrelid = c.conrelid AND a.attnum = c.conkey[1]) AS first
              FROM pg_constraint c WHERE contype = 'f' AND conrelid = (SELECT oid FROM t))
SELECT problem FROM (
    SELECT 'row-level security is not enabled and forced' FROM t WHERE NOT (relrowsecurity AND relforcerowsecurity)
    UNION ALL SELECT 'not owned by tenantry_owner' FROM t WHERE pg_get_userbyid(relowner) <> 'tenantry_owner'
    UNION ALL SELECT 'tenant_id is not NOT NULL' FROM t WHERE NOT EXISTS (SELECT FROM pg_attribute
        WHERE attrelid = t.oid AND attname = 'tenant_id' AND attnotnull AND atttypid = 'uuid'::regtype)
    UNION ALL SELECT 'no reference to tenants' FROM t WHERE NOT EXISTS (SELECT FROM refs
        WHERE confrelid = 'tenants'::regclass AND first = 'tenant_id' AND cardinality(conkey) = 1)
    UNION ALL SELECT conname || ' does not begin with tenant_id' FROM refs
        WHERE confrelid <> 'tenants'::regclass AND (first <> 'tenant_id' OR cardinality(conkey) < 2)
    UNION ALL SELECT relname || ' does not begin with tenant_id' FROM keys
        WHERE indisunique AND columns[1] <> 'tenant_id'
    UNION ALL SELECT 'no index on (tenant_id, id)' FROM t
        WHERE NOT EXISTS (SELECT FROM keys WHERE columns[1:2] = '{tenant_id,id}' AND indpred IS NULL)
    UNION ALL SELECT 'no index on (tenant_id, created_at)' FROM t
        WHERE NOT EXISTS (SELECT FROM keys WHERE columns[1:2] = '{tenant_id,created_at}' AND indpred IS NULL)
    UNION ALL SELECT 'the runtime role has more than SELECT, INSERT, UPDATE, DELETE' FROM t
        WHERE has_table_privilege('tenantry_app', t.oid, 'TRUNCATE, REFERENCES, TRIGGER')
) AS problems (problem) ORDER BY 1";

/// Each of the four commands has a policy of its own for the runtime role, with the rule wherever one can be.
async fn policies_hold(owner: &mut PgConnection, table: &str, column: &str) {
    let sql = format!(
        "SELECT concat_ws(' ', policyname, roles::text, permissive, qual, with_check) FROM pg_policies
         WHERE tablename = '{table}' AND roles = '{{tenantry_app}}' ORDER BY policyname"
    );
    let rule = policy_expression_in_catalogue(column);
    let expected = [("delete", 1), ("insert", 1), ("select", 1), ("update", 2)].map(|(command, times)| {
        let rules = vec![rule.as_str(); times].join(" ");
        format!("{table}_{command} {{tenantry_app}} PERMISSIVE {rules}")
    });
    assert_eq!(names(owner, &sql).await, expected);
    let others = format!(
        "SELECT policyname::text FROM pg_policies WHERE tablename = '{table}' AND roles <> '{{tenantry_app}}' ORDER BY 1"
    );
    let further: &[&str] = match table {
        "audit_blocks" => &[
            "audit_blocks_erase",
            "audit_blocks_purge",
            "audit_blocks_purge_select",
        ],
        "audit_events" => &[
            "audit_events_erase",
            "audit_events_platform_select",
            "audit_events_purge",
            "audit_events_purge_select",
        ],
        "audit_streams" => &["audit_streams_platform_select"],
        "event_outbox" => &["event_outbox_platform_insert", "event_outbox_platform_select"],
        "events" => &["events_platform_select"],
        "event_progress" => &["event_progress_platform_select", "event_progress_platform_update"],
        "audit_heads" => &["audit_heads_purge", "audit_heads_purge_select"],
        "erasures" => &["erasures_purge", "erasures_purge_select"],
        "support_accesses" => &[
            "support_accesses_platform_select",
            "support_accesses_platform_update",
        ],
        "resource_versions" => &["resource_versions_purge", "resource_versions_purge_select"],
        "tenant_setting_versions" => &[
            "tenant_setting_versions_purge",
            "tenant_setting_versions_purge_select",
        ],
        "usage_events" => &["usage_events_purge", "usage_events_purge_select"],
        "jobs" => &["jobs_platform_select", "jobs_platform_update"],
        "quota_leases" => &["quota_leases_platform_select"],
        "projects" => &["projects_platform_select"],
        "tasks" => &["tasks_platform_select"],
        "usage_days" => &["usage_days_platform_select"],
        "users" => &["users_platform_select"],
        "usage_dirty" => &["usage_dirty_platform_select"],
        "webhook_lanes" => &["webhook_lanes_platform_select"],
        "tenants" => &[
            "tenants_platform_select",
            "tenants_platform_update",
            "tenants_purge_delete",
            "tenants_purge_select",
            "tenants_purge_update",
        ],
        _ => &[],
    };
    assert_eq!(names(owner, &others).await, further);
}
