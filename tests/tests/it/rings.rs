//! Each ring of the isolation alone, with the others switched off, for every tenant table of the catalogue.
//!
//! - Row-level security alone: SQL without any predicate of ours, through the door for raw SQL and on plain
//!   connections of the runtime role.
//! - The application alone: connected as a role that bypasses row-level security.
//! - The keys alone: as a superuser, without any predicate.
//! - The tripwire alone: a role that bypasses row-level security, and SQL without any predicate.
//!
//! A new table is attacked without anybody adding it here; it only needs a row in each tenant (see [`SEEDS`]).

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{ActiveModelTrait, ColumnTrait as _, Condition, EntityName as _, Value};
use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use tenantry_domain::kernel::{PageRequest, Position, StoreError};
use tenantry_domain::store::{Units, Work};
use tenantry_domain::tenant::TenantScope;
use tenantry_persistence::{PoolConfig, TenantEntity, TenantTx, tenant_tx};
use tenantry_tests::{ManualClock, MemoryPayments, Options, Payments, TenantWorld, World};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// What every tenant table has, as an entity of its own.
macro_rules! entities {
    ($($name:ident $table:tt)*) => { $(
        mod $name {
            use sea_orm::entity::prelude::*;

            #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
            #[sea_orm(table_name = $table)]
            pub struct Model {
                #[sea_orm(primary_key, auto_increment = false)]
                pub tenant_id: Uuid,
                #[sea_orm(primary_key, auto_increment = false)]
                pub id: Uuid,
                pub created_at: DateTimeUtc,
            }

            #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
            pub enum Relation {}

            impl ActiveModelBehavior for ActiveModel {}
            tenantry_persistence::tenant_entity!(Entity, Model, Column);
        }
    )* };
}

entities! {
    account_links "account_links"
    account_notices "account_notices"
    api_keys "api_keys"
    audit_blocks "audit_blocks"
    audit_events "audit_events"
    audit_heads "audit_heads"
    audit_streams "audit_streams"
    billing_accounts "billing_accounts"
    brandings "brandings"
    custom_roles "custom_roles"
    data_keys "data_keys"
    erasures "erasures"
    event_consumers "event_consumers"
    event_outbox "event_outbox"
    event_progress "event_progress"
    events "events"
    flag_overrides "flag_overrides"
    idempotency_keys "idempotency_keys"
    invitations "invitations"
    invoices "invoices"
    jobs "jobs"
    lockouts "lockouts"
    meter_outbox "meter_outbox"
    mfa_challenges "mfa_challenges"
    notification_positions "notification_positions"
    notification_preferences "notification_preferences"
    notifications "notifications"
    passkey_ceremonies "passkey_ceremonies"
    passkeys "passkeys"
    project_members "project_members"
    projects "projects"
    quota_alerts "quota_alerts"
    quota_counters "quota_counters"
    quota_leases "quota_leases"
    quota_reservations "quota_reservations"
    recovery_codes "recovery_codes"
    refresh_sessions "refresh_sessions"
    resource_versions "resource_versions"
    resources "resources"
    storage_usage "storage_usage"
    support_access_uses "support_access_uses"
    support_accesses "support_accesses"
    tasks "tasks"
    security_alerts "security_alerts"
    security_detections "security_detections"
    tenant_domains "tenant_domains"
    tenant_exports "tenant_exports"
    tenant_setting_versions "tenant_setting_versions"
    tenant_settings "tenant_settings"
    totp_factors "totp_factors"
    trusted_devices "trusted_devices"
    usage_days "usage_days"
    usage_dirty "usage_dirty"
    usage_events "usage_events"
    usage_hours "usage_hours"
    usage_intake "usage_intake"
    usage_keys "usage_keys"
    users "users"
    webhook_attempts "webhook_attempts"
    webhook_deliveries "webhook_deliveries"
    webhook_endpoints "webhook_endpoints"
    webhook_lanes "webhook_lanes"
}

mod tenants {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "tenants")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
    tenantry_persistence::tenant_entity!(Entity, Model, Column, Id, id);
}

/// Hands their names on.
macro_rules! for_every_entity {
    ($then:ident) => {
        $then!(account_links account_notices api_keys audit_blocks audit_events audit_heads audit_streams billing_accounts brandings custom_roles data_keys erasures event_consumers event_outbox event_progress events flag_overrides idempotency_keys invitations invoices jobs lockouts meter_outbox mfa_challenges notification_positions notification_preferences notifications passkey_ceremonies passkeys project_members projects quota_alerts quota_counters quota_leases quota_reservations recovery_codes refresh_sessions resource_versions resources security_alerts security_detections storage_usage support_access_uses support_accesses tasks tenant_domains tenant_exports tenant_setting_versions tenant_settings tenants totp_factors trusted_devices usage_days usage_dirty usage_events usage_hours usage_intake usage_keys users webhook_attempts webhook_deliveries webhook_endpoints webhook_lanes)
    };
}

// ------------------------------------------------------------------------------------------------ row-level security

#[actix_web::test]
async fn raw_sql_of_one_tenant_sees_and_changes_no_row_of_another() {
    let world = seeded(Options::default()).await;
    let acme = scope(&world).await;
    let before = world.digest(&world.globex).await;
    let mut attacks = 0;
    for subject in subjects(&world).await {
        for attack in reads(&subject).into_iter().chain(writes(&subject)) {
            attack.run(&world.app.ports.units, &acme, &subject).await;
            attacks += 1;
        }
        assert_eq!(world.digest(&world.globex).await, before, "{}", subject.table);
    }
    // Last, as little of acme's is left afterwards.
    for subject in subjects(&world).await {
        let everything = Attack::new(
            "delete everything",
            format!("DELETE FROM {}", subject.table),
            Expect::OwnAtMost,
        );
        everything.run(&world.app.ports.units, &acme, &subject).await;
        assert_eq!(world.digest(&world.globex).await, before, "{}", subject.table);
    }
    assert!(attacks > 400, "{attacks}");
}

#[actix_web::test]
async fn a_row_that_names_another_tenant_is_refused_by_every_table() {
    let world = seeded(Options::default()).await;
    let acme = scope(&world).await;
    let before = world.digest(&world.globex).await;
    for subject in subjects(&world).await {
        for attack in foreign_inserts(&subject) {
            attack.run(&world.app.ports.units, &acme, &subject).await;
        }
    }
    assert_eq!(world.digest(&world.globex).await, before);
}

#[actix_web::test]
async fn a_row_is_not_moved_to_another_tenant() {
    let world = seeded(Options::default()).await;
    let acme = scope(&world).await;
    let (own, foreign) = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    for subject in subjects(&world).await {
        let Subject {
            table,
            key,
            globex,
            own_id,
            ..
        } = &subject;
        for condition in ["true".to_owned(), format!("id = '{own_id}'")] {
            let sql = format!("UPDATE {table} SET {key} = '{globex}' WHERE {condition}");
            Attack::new("move", sql, Expect::Refused)
                .run(&world.app.ports.units, &acme, &subject)
                .await;
        }
        let sql = format!("UPDATE {table} t SET {key} = o.id FROM (VALUES ('{globex}'::uuid)) o (id)");
        Attack::new("move by a join", sql, Expect::Refused)
            .run(&world.app.ports.units, &acme, &subject)
            .await;
    }
    assert_eq!(world.digest(&world.acme).await, own);
    assert_eq!(world.digest(&world.globex).await, foreign);
}

#[actix_web::test]
async fn a_conflict_with_another_tenants_unique_key_does_not_exist() {
    let world = seeded(Options::default()).await;
    let acme = scope(&world).await;
    let before = world.digest(&world.globex).await;
    let mut admin = world.database.admin().await;
    let mut keys = 0;
    for subject in subjects(&world).await {
        // A tenant's slug and subdomain are unique among all: they are names in public.
        if subject.table == "tenants" {
            continue;
        }
        let own = one_row(&mut admin, &subject, &subject.acme).await;
        let references = references(&mut admin, Some(&subject.table)).await;
        let Subject {
            table,
            columns,
            row,
            can_update,
            ..
        } = &subject;
        for key in unique_keys(&mut admin, table).await {
            // The victim's row as acme's, with references to acme's, once with the victim's values in the key and
            // once with values that nobody has.
            let of = |column: &str, row: &str| {
                format!("|| jsonb_build_object('{column}', '{row}'::jsonb->'{column}')")
            };
            let referring: String = references
                .iter()
                .map(|reference| of(&reference.column, &own))
                .collect();
            let base = format!(
                "'{row}'::jsonb {referring} || jsonb_build_object('tenant_id', '{}')",
                subject.acme
            );
            let taken: String = key.columns.iter().map(|(column, _)| of(column, row)).collect();
            let free: String = key
                .columns
                .iter()
                .map(|(column, kind)| match column.as_str() {
                    // One of few values, which a CHECK knows.
                    "purpose" | "kind" if table.starts_with("account_") => of(column, row),
                    "account" | "kind" if table == "lockouts" => of(column, row),
                    // A CHECK compares it with the last one and with the length of the links.
                    "first_sequence" if table == "audit_blocks" => format!(
                        "|| jsonb_build_object('first_sequence', 900000, 'last_sequence', 900000 + \
                         ('{row}'::jsonb->>'last_sequence')::bigint - ('{row}'::jsonb->>'first_sequence')::bigint)"
                    ),
                    // A CHECK knows what a host name looks like.
                    "domain" if table == "tenant_domains" => {
                        "|| jsonb_build_object('domain', gen_random_uuid()::text || '.rings-corp.com')".to_owned()
                    }
                    _ => format!("|| jsonb_build_object('{column}', {})", random(kind)),
                })
                .collect();
            let target: Vec<&str> = std::iter::once("tenant_id")
                .chain(key.columns.iter().map(|(column, _)| column.as_str()))
                .collect();
            let target = format!("({}) {}", target.join(", "), key.condition);
            let mut tails = vec![
                String::new(),
                "ON CONFLICT DO NOTHING".to_owned(),
                format!("ON CONFLICT {target} DO NOTHING"),
            ];
            if *can_update {
                tails.push(format!(
                    "ON CONFLICT {target} DO UPDATE SET created_at = '2000-01-01' RETURNING *"
                ));
            }
            for tail in tails {
                let mut outcomes = Vec::new();
                for values in [&taken, &free] {
                    let fresh = if key.columns.iter().any(|(column, _)| column == "id") {
                        ""
                    } else {
                        "|| jsonb_build_object('id', gen_random_uuid())"
                    };
                    let sql = format!(
                        "INSERT INTO {table} ({columns}) SELECT {columns} FROM jsonb_populate_record(NULL::{table}, {base} {fresh} {values}) {tail}"
                    );
                    outcomes.push(undone(&world.app.ports.units, &acme, leak(sql)).await);
                }
                assert_eq!(outcomes[0], outcomes[1], "{table}, {}: {tail}", key.name);
                let row_security = matches!(
                    outcomes[0],
                    Err(StoreError::RowSecurity(_) | StoreError::Other(_))
                );
                assert!(!row_security, "{table}, {}: {tail}: {outcomes:?}", key.name);
            }
            keys += 1;
        }
    }
    assert!(keys >= 11, "{keys}");
    assert_eq!(world.digest(&world.globex).await, before);
}

#[actix_web::test]
async fn tables_of_no_tenant_are_closed_to_the_runtime_role() {
    let world = World::new().await;
    let acme = scope(&world).await;
    let tenant_tables: BTreeSet<String> = tables(&world).await.into_iter().map(|table| table.name).collect();
    let sql = "SELECT c.relname::text FROM pg_class c WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relnamespace = 'public'::regnamespace";
    let all: Vec<String> = sqlx::query_scalar(sql)
        .fetch_all(&mut world.database.admin().await)
        .await
        .unwrap();
    for table in all.into_iter().filter(|table| !tenant_tables.contains(table)) {
        let run = async |sql: String| undone(&world.app.ports.units, &acme, leak(sql)).await;
        let read = run(format!("SELECT * FROM {table}")).await;
        // Which migrations ran is nobody's secret, and is asked at the start.
        let open = table == "seaql_migrations" && read.is_ok();
        assert!(
            open || matches!(read, Err(StoreError::RowSecurity(_))),
            "{table}: {read:?}"
        );
        for sql in [format!("DELETE FROM {table}"), format!("TRUNCATE {table}")] {
            assert!(
                matches!(run(sql).await, Err(StoreError::RowSecurity(_))),
                "{table}"
            );
        }
    }
}

#[actix_web::test]
async fn no_table_is_truncated_locked_up_or_given_a_trigger_by_the_runtime_role() {
    let world = seeded(Options::default()).await;
    let acme = scope(&world).await;
    for subject in subjects(&world).await {
        let table = &subject.table;
        for sql in [
            format!("TRUNCATE {table} CASCADE"),
            format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"),
            format!("ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY"),
            format!("CREATE POLICY everything ON {table} USING (true)"),
            format!("DROP POLICY {table}_select ON {table}"),
            format!(
                "CREATE TRIGGER t BEFORE INSERT ON {table} EXECUTE FUNCTION suppress_redundant_updates_trigger()"
            ),
            format!("CREATE RULE r AS ON SELECT TO {table} DO INSTEAD NOTHING"),
            format!("CREATE VIEW public.v AS SELECT * FROM {table}"),
            format!("CREATE TABLE public.copy AS SELECT * FROM {table}"),
            format!("CREATE TEMPORARY TABLE copy AS SELECT * FROM {table}"),
            format!("ALTER TABLE {table} OWNER TO tenantry_app"),
            format!("GRANT SELECT ON {table} TO PUBLIC"),
        ] {
            let outcome = undone(&world.app.ports.units, &acme, leak(sql.clone())).await;
            // GRANT without the right to is a warning only.
            let harmless = sql.starts_with("GRANT") && outcome.is_ok();
            assert!(harmless || outcome.is_err(), "{sql}: {outcome:?}");
        }
    }
    let public: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM information_schema.table_privileges WHERE grantee = 'PUBLIC' AND table_schema = 'public')",
    )
    .fetch_one(&mut world.database.admin().await)
    .await
    .unwrap();
    assert!(!public);
}

#[actix_web::test]
async fn copy_gives_and_takes_no_row_of_another_tenant() {
    let world = seeded(Options::default()).await;
    let before = world.digest(&world.globex).await;
    let mut app = world.database.app().await;
    for subject in subjects(&world).await {
        let Subject {
            table,
            key,
            acme,
            globex,
            columns,
            own_rows,
            row,
            ..
        } = &subject;
        begin(&mut app, acme).await;
        // The text format is a line for each row.
        let lines = |copied: &str| copied.lines().count();
        let all = copy_out(&mut app, &format!("COPY {table} TO STDOUT")).await;
        // Under row-level security COPY reads the table ONLY, and one of partitions has no rows itself.
        let own_rows = if table == "usage_events" { 0 } else { *own_rows };
        assert_eq!(lines(&all), own_rows, "{table}");
        assert!(!all.contains(globex), "{table}");
        for source in [
            format!("SELECT * FROM {table} WHERE {key} = '{globex}'"),
            format!("SELECT * FROM {table} WHERE {key} <> '{acme}'"),
            format!("WITH other AS (SELECT * FROM {table}) SELECT * FROM other WHERE {key} = '{globex}'"),
        ] {
            assert_eq!(
                copy_out(&mut app, &format!("COPY ({source}) TO STDOUT")).await,
                "",
                "{source}"
            );
        }
        run(&mut app, "COMMIT").await.unwrap();
        // PostgreSQL offers no COPY FROM under row-level security; were it to, the row is the victim's.
        for target in [
            format!("COPY {table} ({columns}) FROM STDIN"),
            format!("COPY {table} FROM STDIN (FORMAT csv)"),
        ] {
            begin(&mut app, acme).await;
            let refused = match app.copy_in_raw(&target).await {
                Err(error) => error,
                Ok(mut copy) => {
                    copy.send(row.as_bytes()).await.unwrap();
                    copy.finish().await.unwrap_err()
                }
            };
            assert!(
                refused.to_string().contains("row-level security"),
                "{target}: {refused}"
            );
            run(&mut app, "ROLLBACK").await.unwrap();
        }
        begin(&mut app, acme).await;
        let to_a_file = run(&mut app, &format!("COPY {table} TO '/tmp/tenantry-rings'"))
            .await
            .unwrap_err();
        assert_eq!(state(&to_a_file), "42501", "{table}: {to_a_file}");
        run(&mut app, "ROLLBACK").await.unwrap();
    }
    assert_eq!(world.digest(&world.globex).await, before);
}

#[actix_web::test]
async fn a_cursor_walks_over_the_rows_of_its_own_tenant_only() {
    let world = seeded(Options::default()).await;
    let before = world.digest(&world.globex).await;
    let mut app = world.database.app().await;
    for subject in subjects(&world).await {
        let Subject {
            table,
            key,
            acme,
            globex,
            own_rows,
            can_update,
            ..
        } = &subject;
        begin(&mut app, acme).await;
        run(
            &mut app,
            &format!("DECLARE every SCROLL CURSOR FOR SELECT * FROM {table}"),
        )
        .await
        .unwrap();
        run(
            &mut app,
            &format!("DECLARE other CURSOR FOR SELECT * FROM {table} WHERE {key} = '{globex}'"),
        )
        .await
        .unwrap();
        assert_eq!(rows(&mut app, "FETCH ALL FROM every").await, *own_rows, "{table}");
        assert_eq!(
            rows(&mut app, "FETCH BACKWARD ALL FROM every").await,
            *own_rows,
            "{table}"
        );
        assert_eq!(rows(&mut app, "FETCH ALL FROM other").await, 0, "{table}");
        if *can_update {
            run(
                &mut app,
                &format!("DECLARE hit CURSOR FOR SELECT * FROM {table} WHERE {key} = '{globex}' FOR UPDATE"),
            )
            .await
            .unwrap();
            assert_eq!(rows(&mut app, "FETCH hit").await, 0, "{table}");
            let nowhere = run(
                &mut app,
                &format!("UPDATE {table} SET created_at = now() WHERE CURRENT OF hit"),
            )
            .await;
            assert_eq!(state(&nowhere.unwrap_err()), "24000", "{table}");
        }
        run(&mut app, "ROLLBACK").await.unwrap();
    }
    assert_eq!(world.digest(&world.globex).await, before);
}

#[actix_web::test]
async fn a_statement_prepared_under_one_tenant_runs_under_the_next_as_the_next() {
    let world = seeded(Options::default()).await;
    let mut app = world.database.app().await;
    // The plan that is made once for all values.
    run(&mut app, "SET plan_cache_mode = force_generic_plan")
        .await
        .unwrap();
    for subject in subjects(&world).await {
        let Subject {
            table,
            key,
            acme,
            globex,
            own_rows,
            their_rows,
            can_update,
            ..
        } = &subject;
        begin(&mut app, acme).await;
        run(&mut app, &format!("PREPARE every AS SELECT {key} FROM {table}"))
            .await
            .unwrap();
        run(
            &mut app,
            &format!("PREPARE one (uuid) AS SELECT {key} FROM {table} WHERE {key} = $1"),
        )
        .await
        .unwrap();
        if *can_update {
            run(
                &mut app,
                &format!("PREPARE change AS UPDATE {table} SET created_at = created_at"),
            )
            .await
            .unwrap();
        }
        run(&mut app, "COMMIT").await.unwrap();
        for _ in 0..3 {
            for (tenant, other, count) in [(acme, globex, *own_rows), (globex, acme, *their_rows)] {
                begin(&mut app, tenant).await;
                let sql = AssertSqlSafe("EXECUTE every".to_owned());
                let found = sqlx::raw_sql(sql).fetch_all(&mut app).await.unwrap();
                assert_eq!(found.len(), count, "{table}");
                for row in found {
                    assert_eq!(row.get::<uuid::Uuid, _>(0).to_string(), *tenant, "{table}");
                }
                assert_eq!(
                    rows(&mut app, &format!("EXECUTE one ('{tenant}')")).await,
                    count,
                    "{table}"
                );
                assert_eq!(
                    rows(&mut app, &format!("EXECUTE one ('{other}')")).await,
                    0,
                    "{table}"
                );
                if *can_update {
                    assert_eq!(
                        run(&mut app, "EXECUTE change").await.unwrap(),
                        count as u64,
                        "{table}"
                    );
                }
                run(&mut app, "ROLLBACK").await.unwrap();
            }
            // Without a tenant.
            assert_eq!(rows(&mut app, "EXECUTE every").await, 0, "{table}");
            assert_eq!(
                rows(&mut app, &format!("EXECUTE one ('{acme}')")).await,
                0,
                "{table}"
            );
        }
        run(&mut app, "DEALLOCATE ALL").await.unwrap();
    }
}

#[actix_web::test]
async fn one_raw_statement_serves_both_tenants_of_a_connection_each_with_its_own() {
    let world = seeded(one_connection()).await;
    let (acme, globex) = (
        scope(&world).await,
        world.cx(&world.globex.admin).await.scope().clone(),
    );
    for subject in subjects(&world).await {
        let all = leak(format!("SELECT * FROM {}", subject.table));
        for _ in 0..6 {
            let own = undone(&world.app.ports.units, &acme, all).await.unwrap();
            let theirs = undone(&world.app.ports.units, &globex, all).await.unwrap();
            assert_eq!(
                (own as usize, theirs as usize),
                (subject.own_rows, subject.their_rows),
                "{}",
                subject.table
            );
        }
    }
    assert_eq!(world.pool.open(), 1);
}

// ------------------------------------------------------------------------------------------------------- the setting

/// What takes the tenant off a transaction, in every way that SQL has.
const UNSETTING: &[&str] = &[
    "RESET app.current_tenant",
    "RESET ALL",
    "SET app.current_tenant = ''",
    "SET LOCAL app.current_tenant = ''",
    "SET LOCAL app.current_tenant TO DEFAULT",
    "SELECT set_config('app.current_tenant', '', true)",
    "SELECT set_config('app.current_tenant', NULL, false)",
    "COMMIT",
    "ROLLBACK",
    "ROLLBACK AND CHAIN",
    "COMMIT AND CHAIN",
];

/// What makes no tenant of it.
const NONSENSE: &[&str] = &[
    "SET LOCAL app.current_tenant = 'nonsense'",
    "SET LOCAL app.current_tenant = '*'",
    "SET LOCAL app.current_tenant = '%'",
    "SET LOCAL app.current_tenant = ' '",
    "SET LOCAL app.current_tenant = 'null'",
    "SET LOCAL app.current_tenant = '0'",
    "SET LOCAL app.current_tenant = '00000000-0000-0000-0000-000000000000'",
    "SET LOCAL app.current_tenant = 'true) OR (true'",
    "SET SESSION app.current_tenant = 'nonsense'",
];

#[actix_web::test]
async fn without_the_setting_there_are_no_rows_and_nothing_is_written() {
    let world = seeded(one_connection()).await;
    let mut app = world.database.app().await;
    let digests = (world.digest(&world.acme).await, world.digest(&world.globex).await);
    for subject in subjects(&world).await {
        for unset in UNSETTING.iter().chain(NONSENSE) {
            assert_shows_and_takes_nothing(&mut app, &subject, Some(unset)).await;
        }
        // Never set at all.
        let mut fresh = world.database.app().await;
        assert_shows_and_takes_nothing(&mut fresh, &subject, None).await;
    }
    assert_eq!(
        (world.digest(&world.acme).await, world.digest(&world.globex).await),
        digests
    );
}

#[actix_web::test]
async fn a_transaction_without_its_setting_still_shows_nothing_through_the_door_for_raw_sql() {
    let world = seeded(one_connection()).await;
    let acme = scope(&world).await;
    let units = &world.app.ports.units;
    for subject in subjects(&world).await {
        let Subject { table, columns, .. } = &subject;
        let own = one_row(&mut world.database.admin().await, &subject, &subject.acme).await;
        let select = leak(format!("SELECT * FROM {table}"));
        let insert = leak(format!(
            "INSERT INTO {table} ({columns}) SELECT {columns} FROM jsonb_populate_record(NULL::{table}, '{own}'::jsonb)"
        ));
        for unset in UNSETTING.iter().chain(NONSENSE) {
            let outcome = on_tx(units, &acme, async |tx| {
                tx.raw_sql("an attack").execute(unset, []).await?;
                let seen = tx.raw_sql("an attack").execute(select, []).await;
                let written = tx.raw_sql("an attack").execute(insert, []).await;
                Ok((seen, written))
            });
            if let Ok((seen, written)) = outcome.await {
                assert!(!matches!(seen, Ok(1..)), "{unset}, {table}: {seen:?}");
                assert!(written.is_err(), "{unset}, {table}: {written:?}");
            }
            assert_clean(&world, unset).await;
        }
    }
}

#[actix_web::test]
async fn discard_all_is_not_to_be_had_in_a_transaction() {
    let world = seeded(one_connection()).await;
    let acme = scope(&world).await;
    let refused = undone(&world.app.ports.units, &acme, "DISCARD ALL").await;
    assert!(refused.is_err(), "{refused:?}");
    // After the transaction that it was in has been ended behind our back, it takes the driver's own statements along.
    let outcome = on_tx(&world.app.ports.units, &acme, async |tx| {
        tx.find::<tasks::Entity>().all().await?;
        tx.raw_sql("an attack").execute("COMMIT", []).await?;
        tx.raw_sql("an attack").execute("DISCARD ALL", []).await?;
        tx.raw_sql("an attack").execute("SELECT * FROM tasks", []).await
    });
    assert!(!matches!(outcome.await, Ok(1..)));
    // Whoever is next on the connection may find out; the one after is on a new connection.
    let find = async || {
        on_tx(&world.app.ports.units, &acme, async |tx| {
            tx.find::<tasks::Entity>().count().await
        })
        .await
    };
    let all = async || {
        on_tx(&world.app.ports.units, &acme, async |tx| {
            tx.find::<tasks::Entity>().all().await
        })
        .await
    };
    let (first, second) = (all().await, find().await);
    assert!(first.as_ref().map_or(true, |tasks| tasks.len() == 1), "{first:?}");
    assert_eq!(second, Ok(1));
    assert_eq!(all().await.map(|tasks| tasks.len()), Ok(1));
    assert_clean(&world, "DISCARD ALL").await;
}

#[actix_web::test]
async fn savepoints_bring_the_tenant_back_or_take_it_and_never_bring_another() {
    let world = seeded(Options::default()).await;
    let mut app = world.database.app().await;
    for subject in subjects(&world).await {
        let Subject {
            table,
            acme,
            own_rows,
            columns,
            row,
            ..
        } = &subject;
        let all = format!("SELECT * FROM {table}");
        begin(&mut app, acme).await;
        for unset in [
            "SET LOCAL app.current_tenant = ''",
            "RESET app.current_tenant",
            "RESET ALL",
        ] {
            run(&mut app, "SAVEPOINT one").await.unwrap();
            run(&mut app, unset).await.unwrap();
            assert_eq!(rows(&mut app, &all).await, 0, "{unset}, {table}");
            run(&mut app, "SAVEPOINT two").await.unwrap();
            assert_eq!(rows(&mut app, &all).await, 0, "{unset}, {table}");
            run(&mut app, "ROLLBACK TO one").await.unwrap();
            assert_eq!(rows(&mut app, &all).await, *own_rows, "{unset}, {table}");
            run(&mut app, "RELEASE one").await.unwrap();
            assert_eq!(rows(&mut app, &all).await, *own_rows, "{unset}, {table}");
        }
        // A subtransaction that failed.
        run(&mut app, "SAVEPOINT failing").await.unwrap();
        let insert = format!(
            "INSERT INTO {table} ({columns}) SELECT {columns} FROM jsonb_populate_record(NULL::{table}, '{row}'::jsonb)"
        );
        assert_eq!(
            state(&run(&mut app, &insert).await.unwrap_err()),
            "42501",
            "{table}"
        );
        run(&mut app, "ROLLBACK TO failing").await.unwrap();
        assert_eq!(rows(&mut app, &all).await, *own_rows, "{table}");
        assert_eq!(
            state(&run(&mut app, &insert).await.unwrap_err()),
            "42501",
            "{table}"
        );
        run(&mut app, "ROLLBACK TO failing").await.unwrap();
        // Unset in a subtransaction that is kept.
        run(
            &mut app,
            "SAVEPOINT kept; SET LOCAL app.current_tenant = ''; RELEASE kept",
        )
        .await
        .unwrap();
        assert_eq!(rows(&mut app, &all).await, 0, "{table}");
        run(&mut app, "COMMIT").await.unwrap();
        assert_eq!(setting(&mut app).await, "");
    }
}

#[actix_web::test]
async fn no_other_role_and_no_switch_opens_the_tables() {
    let world = seeded(Options::default()).await;
    let mut app = world.database.app().await;
    for role in [
        "postgres",
        "tenantry_owner",
        "tenantry_platform",
        "pg_read_all_data",
        "pg_write_all_data",
    ] {
        for sql in [
            format!("SET ROLE {role}"),
            format!("SET LOCAL ROLE {role}"),
            format!("SET SESSION AUTHORIZATION {role}"),
        ] {
            begin(&mut app, &world.acme.id.to_string()).await;
            let refused = run(&mut app, &sql).await.unwrap_err();
            // A superuser by another name is no role at all.
            assert!(
                ["42501", "22023"].contains(&state(&refused).as_str()),
                "{sql}: {refused}"
            );
            run(&mut app, "ROLLBACK").await.unwrap();
        }
    }
    for subject in subjects(&world).await {
        let all = format!("SELECT * FROM {}", subject.table);
        for harmless in [
            "RESET ROLE",
            "SET ROLE NONE",
            "RESET SESSION AUTHORIZATION",
            "SET SESSION AUTHORIZATION DEFAULT",
        ] {
            begin(&mut app, &subject.acme).await;
            run(&mut app, harmless).await.unwrap();
            assert_eq!(rows(&mut app, &all).await, subject.own_rows, "{harmless}");
            run(&mut app, "ROLLBACK").await.unwrap();
        }
        // It is the switch for dumps: what cannot be seen whole is an error.
        begin(&mut app, &subject.acme).await;
        run(&mut app, "SET LOCAL row_security = off").await.unwrap();
        assert_eq!(
            state(&run(&mut app, &all).await.unwrap_err()),
            "42501",
            "{}",
            subject.table
        );
        run(&mut app, "ROLLBACK").await.unwrap();
    }
    for switch in [
        "SET session_replication_role = replica",
        "ALTER ROLE tenantry_app BYPASSRLS",
        "ALTER ROLE tenantry_app SUPERUSER",
    ] {
        assert_eq!(
            state(&run(&mut app, switch).await.unwrap_err()),
            "42501",
            "{switch}"
        );
    }
}

/// The runtime role can name another tenant itself: row-level security protects from mistakes, not from SQL that
/// somebody else wrote. That is why raw SQL is a literal, with no text from outside in it. This shows how far such a
/// literal would reach: to the end of its own transaction.
#[actix_web::test]
async fn a_tenant_that_raw_sql_sets_itself_is_forgotten_with_its_transaction() {
    let world = seeded(one_connection()).await;
    let acme = scope(&world).await;
    let globex = world.globex.id;
    let whose = async || {
        world
            .app
            .ports
            .units
            .read(&acme, async |work: &mut Work| {
                let tasks = tenant_tx(work)?
                    .raw_sql("whose rows")
                    .all::<tasks::Entity>("SELECT * FROM tasks", [])
                    .await?;
                Ok::<_, StoreError>(
                    tasks
                        .into_iter()
                        .map(|task| <tasks::Entity as TenantEntity>::tenant_of(&task))
                        .collect::<Vec<_>>(),
                )
            })
            .await
    };
    for set in [
        format!("SET LOCAL app.current_tenant = '{globex}'"),
        format!("SET SESSION app.current_tenant = '{globex}'"),
        format!("SELECT set_config('app.current_tenant', '{globex}', false)"),
    ] {
        let set = leak(set);
        for committed in [true, false] {
            let outcome = on_tx(&world.app.ports.units, &acme, async |tx| {
                tx.raw_sql("an attack").execute(set, []).await?;
                // The rows are another's now, so none comes back: the tripwire stands behind.
                let rows = tx
                    .raw_sql("an attack")
                    .all::<tasks::Entity>("SELECT * FROM tasks", [])
                    .await;
                assert!(
                    matches!(rows, Err(StoreError::IsolationBreach { .. })),
                    "{rows:?}"
                );
                if committed {
                    Ok(())
                } else {
                    Err(StoreError::Other("undone".into()))
                }
            });
            assert_eq!(outcome.await.is_ok(), committed);
            assert_eq!(whose().await.unwrap(), [world.acme.id], "{set}");
            assert_clean(&world, set).await;
        }
    }
    assert_eq!(world.pool.open(), 1);
}

#[actix_web::test]
async fn nothing_that_raw_sql_leaves_on_a_connection_reaches_the_next_tenant() {
    let world = seeded(one_connection()).await;
    let (acme, globex) = (
        scope(&world).await,
        world.cx(&world.globex.admin).await.scope().clone(),
    );
    let units = &world.app.ports.units;
    for subject in subjects(&world).await {
        let hold = leak(format!(
            "DECLARE held CURSOR WITH HOLD FOR SELECT * FROM {}",
            subject.table
        ));
        let prepare = leak(format!("PREPARE kept_{0} AS SELECT * FROM {0}", subject.table));
        let execute = leak(format!("EXECUTE kept_{}", subject.table));
        on_tx(units, &acme, async |tx| {
            tx.raw_sql("an attack").execute(hold, []).await?;
            tx.raw_sql("an attack").execute(prepare, []).await?;
            tx.raw_sql("an attack")
                .execute("SET statement_timeout = '12345ms'", [])
                .await
        })
        .await
        .unwrap();
        // A cursor WITH HOLD keeps the rows of the tenant it was opened under.
        let held = undone(units, &globex, "FETCH ALL FROM held").await;
        assert!(!matches!(held, Ok(1..)), "{}: {held:?}", subject.table);
        // A statement keeps its text only, and is another's when another runs it.
        let kept = undone(units, &globex, execute).await;
        assert!(
            matches!(kept, Ok(rows) if rows as usize == subject.their_rows) || kept.is_err(),
            "{}: {kept:?}",
            subject.table
        );
        let timeout = "SELECT 1 WHERE current_setting('statement_timeout') = '12345ms'";
        assert_eq!(undone(units, &globex, timeout).await, Ok(0));
    }
    assert_clean(&world, "what was left").await;
}

// ----------------------------------------------------------------------------------------------- the application alone

#[actix_web::test]
async fn without_row_level_security_every_builder_keeps_to_its_tenant() {
    let world = seeded(bypassing()).await;
    assert_bypasses(&world).await;
    let acme = scope(&world).await;
    let before = world.digest(&world.globex).await;
    let units = &world.app.ports.units;
    let mut covered = BTreeSet::new();
    for subject in subjects(&world).await {
        macro_rules! attack {
            ($($entity:ident)*) => { match subject.table.as_str() {
                $(stringify!($entity) => {
                    let columns = ($entity::Column::Id, $entity::Column::CreatedAt);
                    let position = |row: &$entity::Model| Position { created_at: row.created_at, id: row.id };
                    attack_with_builders::<$entity::Entity, $entity::ActiveModel>(units, &acme, &world, &subject, columns, position).await;
                })*
                other => panic!("{other} has no entity here"),
            } };
        }
        for_every_entity!(attack);
        covered.insert(subject.table);
    }
    assert_eq!(covered.len(), tables(&world).await.len());
    assert_eq!(world.digest(&world.globex).await, before);
}

/// Every builder against the rows of the other tenant.
async fn attack_with_builders<E, A>(
    units: &Units,
    acme: &TenantScope,
    world: &World,
    subject: &Subject,
    (id, created_at): (E::Column, E::Column),
    position: impl Fn(&E::Model) -> Position + Copy,
) where
    E: TenantEntity<ActiveModel = A>,
    A: ActiveModelTrait<Entity = E> + Send,
{
    let table = &subject.table;
    let theirs = || id.is_in(subject.their_ids.iter().copied());
    let always = || Condition::any().add(Expr::val(1).eq(1)).add(theirs());
    let foreign = || {
        let mut row = <A as sea_orm::ActiveModelTrait>::default();
        row.set(E::tenant_column(), Value::from(world.globex.id.uuid()));
        row
    };
    on_tx(units, acme, async |tx| {
        let mine = |rows: &[E::Model]| {
            assert!(
                rows.iter().all(|row| E::tenant_of(row) == world.acme.id),
                "{table}"
            );
            assert_eq!(rows.len(), subject.own_rows, "{table}");
        };
        mine(&tx.find::<E>().all().await?);
        mine(&tx.find::<E>().filter(always()).all().await?);
        let page = PageRequest {
            limit: 100,
            after: None,
        };
        mine(
            &tx.find::<E>()
                .filter(always())
                .page((created_at, id), page, position)
                .await?
                .items,
        );
        assert_eq!(tx.find::<E>().filter(theirs()).all().await?.len(), 0, "{table}");
        assert!(tx.find::<E>().filter(theirs()).one().await?.is_none(), "{table}");
        assert_eq!(
            tx.find::<E>().filter(always()).count().await?,
            subject.own_rows as u64,
            "{table}"
        );
        assert_eq!(tx.find::<E>().filter(theirs()).count().await?, 0, "{table}");
        // A join on nothing at all: every pair of the tenant's, and no other.
        let all = || Condition::all().add(Expr::val(1).eq(1));
        if table == "tenants" {
            for (one, other) in tx.find::<E>().with::<users::Entity>(all()).all().await? {
                assert_eq!(
                    (E::tenant_of(&one), users::Entity::tenant_of(&other)),
                    (world.acme.id, world.acme.id)
                );
            }
        } else {
            let pairs = tx
                .find::<E>()
                .with::<tenants::Entity>(all())
                .filter(always())
                .all()
                .await?;
            assert_eq!(pairs.len(), subject.own_rows, "{table}");
            assert!(
                pairs
                    .iter()
                    .all(|(row, tenant)| E::tenant_of(row) == world.acme.id
                        && tenant.id == world.acme.id.uuid())
            );
        }
        let inserted = tx.insert_unless_there(foreign()).await;
        assert!(
            matches!(inserted, Err(StoreError::IsolationBreach { .. })),
            "{table}: {inserted:?}"
        );
        let inserted = tx.insert(foreign()).await;
        assert!(
            matches!(inserted, Err(StoreError::IsolationBreach { .. })),
            "{table}: {inserted:?}"
        );
        Ok(())
    })
    .await
    .unwrap();
    // Some tables take no changes; in the others there is nothing to be hit.
    let long_ago = || Expr::cust("created_at - interval '1 day'");
    let changed = on_tx(units, acme, async |tx| {
        tx.update::<E>()
            .set_expr(created_at, long_ago())
            .filter(theirs())
            .run()
            .await
    })
    .await;
    assert!(
        matches!(changed, Ok(0) | Err(StoreError::RowSecurity(_))),
        "{table}: {changed:?}"
    );
    let changed = on_tx(units, acme, async |tx| {
        tx.update::<E>()
            .set_expr(created_at, long_ago())
            .filter(always())
            .run()
            .await
    })
    .await;
    assert!(
        matches!(&changed, Ok(rows) if *rows as usize == subject.own_rows) || changed.is_err(),
        "{table}: {changed:?}"
    );
    let deleted = on_tx(units, acme, async |tx| {
        tx.delete::<E>().filter(theirs()).run().await
    })
    .await;
    assert!(
        matches!(deleted, Ok(0) | Err(StoreError::RowSecurity(_))),
        "{table}: {deleted:?}"
    );
    let moved = on_tx(units, acme, async |tx| {
        tx.update::<E>()
            .set(foreign())
            .set_expr(created_at, long_ago())
            .filter(theirs())
            .run()
            .await
    })
    .await;
    assert!(
        matches!(moved, Ok(0) | Err(StoreError::RowSecurity(_))),
        "{table}: {moved:?}"
    );
}

#[actix_web::test]
async fn without_row_level_security_the_api_neither_shows_nor_changes_the_other_tenant() {
    let world = seeded(bypassing()).await;
    assert_bypasses(&world).await;
    let before = world.digest(&world.globex).await;
    let secrets = secrets(&world).await;
    let admin = &world.acme.admin;
    let document = world.client.get("/openapi.json").await.expect(200).json();
    let (mut listed, mut probed) = (0, 0);
    for (template, operations) in document["paths"].as_object().unwrap() {
        if !template.starts_with("/api/v1/")
            || template.starts_with("/api/v1/auth/") && !template.ends_with("/me")
            // No user gets in there: see the sweep.
            // The key of a flag is everybody's; whose rules it tells of is tested in `features`.
            || template.contains("{key}")
            || template.starts_with("/api/v1/admin/")
        {
            continue;
        }
        let (mut path, victims) = with_victims_ids(&world, template).await;
        if template.ends_with("/billing/preview") {
            path.push_str("?plan=enterprise");
        }
        if template.ends_with("/notifications/unsubscribe") {
            path = crate::notifications::link(&world, &world.acme, admin);
        }
        if template.contains("/export-links/") {
            // A link that this server has not signed.
            let (tenant, signature) = (world.globex.id, "0".repeat(64));
            path.push_str(&format!(
                "?tenant={tenant}&expires=9999999999&signature={signature}"
            ));
        }
        for method in operations
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| ["get", "post", "put", "patch", "delete"].contains(&key.as_str()))
        {
            // A write without an id in its path can name the other tenant's rows in its body only: see below.
            if method != "get" && !victims {
                continue;
            }
            // A name is each tenant's own: this creates a consumer.
            if method == "put" && template.contains("/events/consumers/") {
                continue;
            }
            let name = method.to_uppercase();
            let mut request = world
                .client
                .request(name.parse().unwrap(), &path)
                .bearer(&admin.access_token);
            if let Some(body) = valid_body(&world, &name, template) {
                request = request.json(&body);
            }
            let reply = request.await;
            let expected = if victims { 404 } else { 200 };
            assert_eq!(reply.status, expected, "{name} {template}: {}", reply.text());
            // A problem repeats the path that was asked for.
            if !victims {
                assert_tells(&secrets, &reply.text(), &format!("{name} {template}"));
                listed += 1;
            } else {
                probed += 1;
            }
        }
    }
    assert!(listed >= 6 && probed >= 17, "{listed} lists, {probed} probes");
    let globex = &world.globex;
    for query in [
        format!("/api/v1/tasks?project_id={}", globex.project),
        format!("/api/v1/tasks?assignee_id={}", globex.member.id),
        "/api/v1/tasks?q=globex".to_owned(),
        format!("/api/v1/resources?project_id={}", globex.project),
        "/api/v1/projects?include_deleted=true".to_owned(),
        format!(
            "/api/v1/projects/{}/tasks?assignee_id={}",
            world.acme.project, globex.member.id
        ),
    ] {
        let reply = world.get(admin, &query).await;
        assert!(
            reply.status == 200 || reply.status == 404,
            "{query}: {}",
            reply.text()
        );
        if reply.status == 200 {
            assert_tells(&secrets, &reply.text(), &query);
        }
    }
    let (project, task, resource) = (world.acme.project, world.acme.task, world.acme.resource);
    for (method, path, body) in [
        (
            "POST",
            format!("/api/v1/projects/{project}/tasks"),
            json!({"title": "x", "assignee_id": globex.member.id.uuid()}),
        ),
        (
            "POST",
            format!("/api/v1/projects/{project}/members"),
            json!({"user_id": globex.member.id.uuid()}),
        ),
        (
            "POST",
            "/api/v1/resources".to_owned(),
            json!({"name": "x", "content": "x", "project_id": globex.project.uuid()}),
        ),
        (
            "PATCH",
            format!("/api/v1/tasks/{task}"),
            json!({"project_id": globex.project.uuid()}),
        ),
        (
            "PATCH",
            format!("/api/v1/tasks/{task}"),
            json!({"assignee_id": globex.member.id.uuid()}),
        ),
        (
            "PATCH",
            format!("/api/v1/resources/{resource}"),
            json!({"project_id": globex.project.uuid()}),
        ),
    ] {
        let request = world
            .client
            .request(method.parse().unwrap(), &path)
            .bearer(&admin.access_token);
        let reply = request.json(&body).await;
        assert!(
            (400..500).contains(&reply.status),
            "{method} {path}: {} {}",
            reply.status,
            reply.text()
        );
    }
    world
        .login("acme", &globex.admin.email, tenantry_tests::PASSWORD)
        .await
        .expect(401);
    let refresh = json!({"refresh_token": world.acme.viewer.refresh_token});
    world
        .client
        .post("/api/v1/auth/refresh", &refresh)
        .await
        .expect(200);
    assert_eq!(world.digest(&world.globex).await, before);
    // The API is at work all the same.
    world
        .get(admin, &format!("/api/v1/tasks/{task}"))
        .await
        .expect(200);
    world
        .patch(admin, &format!("/api/v1/tasks/{task}"), &json!({"title": "mine"}))
        .await
        .expect(200);
}

/// A path with the victim's ids in it, and whether there are any.
async fn with_victims_ids(world: &World, template: &str) -> (String, bool) {
    let (mut path, mut noun, mut victims) = (String::new(), "", false);
    for segment in template.trim_start_matches('/').split('/') {
        let value = match (noun, segment) {
            (_, "{n}" | "{a}" | "{b}") => "1".to_owned(),
            ("users" | "members", "{id}" | "{user_id}") => world.globex.member.id.to_string(),
            ("projects", "{id}") => world.globex.project.to_string(),
            ("tasks", "{id}") => world.globex.task.to_string(),
            ("resources", "{id}") => world.globex.resource.to_string(),
            ("roles", "{name}") => {
                let sql = "SELECT name FROM custom_roles WHERE tenant_id = $1";
                let globex = sqlx::query_scalar(sql).bind(world.globex.id.uuid());
                globex.fetch_one(&mut world.database.admin().await).await.unwrap()
            }
            ("consumers", "{name}") => {
                let sql = "SELECT name FROM event_consumers WHERE tenant_id = $1";
                let globex = sqlx::query_scalar(sql).bind(world.globex.id.uuid());
                globex.fetch_one(&mut world.database.admin().await).await.unwrap()
            }
            ("quotas" | "entitlements", "{meter}" | "{feature}") => "api_calls".to_owned(),
            ("reservations", "{id}") => {
                let sql = "SELECT id::text FROM quota_reservations WHERE tenant_id = $1";
                let globex = sqlx::query_scalar(sql).bind(world.globex.id.uuid());
                globex.fetch_one(&mut world.database.admin().await).await.unwrap()
            }
            ("messages", "{id}") => {
                let sql = "SELECT message_id::text FROM webhook_deliveries WHERE tenant_id = $1 LIMIT 1";
                let globex = sqlx::query_scalar(sql).bind(world.globex.id.uuid());
                globex.fetch_one(&mut world.database.admin().await).await.unwrap()
            }
            (noun, parameter) if parameter.starts_with('{') => {
                // Of the path's nouns these alone are not their tables.
                let table = match noun {
                    "events" => "usage_events",
                    "api-keys" => "api_keys",
                    "alerts" => "security_alerts",
                    "domains" => "tenant_domains",
                    "endpoints" => "webhook_endpoints",
                    "exports" | "export-links" => "tenant_exports",
                    "support-access" => "support_accesses",
                    noun => noun,
                };
                let sql = format!(
                    "SELECT id::text FROM {table} WHERE tenant_id = '{}' LIMIT 1",
                    world.globex.id
                );
                let found = sqlx::query_scalar(AssertSqlSafe(sql))
                    .fetch_one(&mut world.database.admin().await)
                    .await;
                found.unwrap_or_else(|error| {
                    panic!("{template}: say here what {parameter} of {noun} is ({error})")
                })
            }
            _ => segment.to_owned(),
        };
        // The number of a version of what a tenant has one of is nobody's.
        let number = (noun == "versions" && template.contains("/settings/")) || segment == "{b}";
        // Nor is the key of a meter.
        let key = matches!(segment, "{meter}" | "{feature}");
        victims |= segment.starts_with('{') && !number && !key;
        path = format!("{path}/{value}");
        noun = segment;
    }
    (path, victims)
}

/// What makes a request valid but for its ids.
fn valid_body(world: &World, method: &str, template: &str) -> Option<serde_json::Value> {
    match (method, template.trim_start_matches("/api/v1/")) {
        ("PATCH", "notifications/{id}") => Some(json!({"read": true})),
        ("PATCH", "users/{id}") => Some(json!({"full_name": "x"})),
        ("PATCH", "projects/{id}" | "api-keys/{id}" | "auth/passkeys/{id}") => Some(json!({"name": "x"})),
        ("PATCH", "roles/{name}") => Some(json!({"description": "x"})),
        ("POST", "api-keys/{id}/rotate") => Some(json!({"overlap_seconds": 0})),
        ("PATCH", "webhooks/endpoints/{id}") => Some(json!({"description": "x"})),
        ("POST", "webhooks/endpoints/{id}/recover") => Some(json!({"since": "2026-01-01T00:00:00Z"})),
        ("POST", "webhooks/endpoints/{id}/rotate-secret") => Some(json!({"grace_period_seconds": 0})),
        ("POST", "users/{id}/erase") => Some(json!({"confirm_email": "nobody@of-no-tenant.example"})),
        ("POST", "projects/{id}/members") => Some(json!({"user_id": world.acme.viewer.id.uuid()})),
        ("POST", "projects/{id}/tasks") | ("PATCH", "tasks/{id}") => Some(json!({"title": "x"})),
        ("PATCH", "resources/{id}") => Some(json!({"content": "x"})),
        ("POST", "quotas/{meter}/reservations/{id}/commit") => Some(json!({"actual": 1})),
        ("POST", "usage/events/{id}/invalidate") => Some(json!({"reason": "x"})),
        _ => None,
    }
}

/// Everything that tells of globex: its ids, its name.
async fn secrets(world: &World) -> Vec<String> {
    let mut secrets = vec!["globex".to_owned(), "Globex".to_owned()];
    for subject in subjects(world).await {
        secrets.extend(subject.their_ids.iter().map(ToString::to_string));
    }
    secrets
}

#[track_caller]
fn assert_tells(secrets: &[String], text: &str, what: &str) {
    let told = secrets.iter().find(|secret| text.contains(secret.as_str()));
    assert!(told.is_none(), "{what} tells {told:?}: {text}");
}

// ------------------------------------------------------------------------------------------------------ the keys alone

#[actix_web::test]
async fn without_any_other_ring_no_reference_leads_to_another_tenant() {
    let world = seeded(Options::default()).await;
    let mut admin = world.database.admin().await;
    let mut outside = world.database.admin().await;
    let narrow = "UPDATE users u SET custom_role = (SELECT max(r.name) FROM custom_roles r WHERE r.tenant_id = u.tenant_id)";
    run(&mut admin, narrow).await.unwrap();
    let subjects = subjects(&world).await;
    let references = references(&mut admin, None).await;
    for Reference {
        name,
        table,
        column,
        parent,
        key,
    } in &references
    {
        let of = |name: &String| subjects.iter().find(|subject| subject.table == *name).unwrap();
        let (child, parent) = (of(table), of(parent));
        let Subject { acme, globex, .. } = child;
        let mut refuse = async |sql: String| {
            run(&mut admin, "BEGIN").await.unwrap();
            let outcome = run(&mut admin, &sql).await;
            let checked = match outcome {
                Ok(rows) => run(&mut admin, "SET CONSTRAINTS ALL IMMEDIATE")
                    .await
                    .map(|_| rows),
                error => error,
            };
            assert_eq!(
                checked.as_ref().map_err(state),
                Err("23503".to_owned()),
                "{name}: {sql}: {checked:?}"
            );
            run(&mut admin, "ROLLBACK").await.unwrap();
        };
        // A row of acme's that refers to globex's.
        let theirs = format!(
            "SELECT {key}::text FROM {} WHERE tenant_id = '{globex}' LIMIT 1",
            parent.table
        );
        let theirs = sqlx::query_scalar(sqlx::AssertSqlSafe(theirs));
        let theirs: String = theirs.fetch_one(&mut outside).await.unwrap();
        refuse(format!(
            "UPDATE {table} SET {column} = '{theirs}' WHERE (tenant_id, id) = (SELECT tenant_id, id FROM {table} WHERE tenant_id = '{acme}' LIMIT 1)"
        ))
        .await;
        // A row that changes hands and goes on to refer to what it did.
        refuse(format!(
            "UPDATE {table} SET tenant_id = '{globex}' WHERE (tenant_id, id) = (SELECT tenant_id, id FROM {table} WHERE tenant_id = '{acme}' AND {column} IS NOT NULL LIMIT 1)"
        ))
        .await;
        // A row that changes hands while others refer to it.
        refuse(format!(
            "UPDATE {0} SET tenant_id = '{globex}' WHERE (tenant_id, {key}) = (SELECT tenant_id, {column} FROM {table} WHERE tenant_id = '{acme}' AND {column} IS NOT NULL LIMIT 1)",
            parent.table
        ))
        .await;
        // A new row: everything else of it is right. Unique keys are asked before references, so the old one goes.
        let columns = &child.columns;
        refuse(format!(
            "WITH old AS (SELECT * FROM {table} WHERE tenant_id = '{acme}' LIMIT 1),              row AS (SELECT n.* FROM old, jsonb_populate_record(NULL::{table}, to_jsonb(old) || jsonb_build_object('{column}', '{theirs}')) n)              INSERT INTO {table} ({columns}) SELECT {columns} FROM row              ON CONFLICT (tenant_id, id) DO UPDATE SET {column} = EXCLUDED.{column}"
        ))
        .await;
    }
    assert!(references.len() >= 10, "{references:?}");
}

#[actix_web::test]
async fn without_any_other_ring_the_same_values_are_unique_in_each_tenant_and_do_not_collide() {
    let world = seeded(Options::default()).await;
    let mut admin = world.database.admin().await;
    for subject in subjects(&world)
        .await
        .into_iter()
        .filter(|subject| subject.table != "tenants")
    {
        let Subject {
            table,
            columns,
            acme,
            globex,
            their_rows,
            ..
        } = &subject;
        let select = columns.replace("\"tenant_id\"", &format!("'{acme}'::uuid"));
        run(&mut admin, "BEGIN; SET LOCAL session_replication_role = replica")
            .await
            .unwrap();
        // Of some things a tenant has one only, so acme's own go first.
        let own = format!("DELETE FROM {table} WHERE tenant_id = '{acme}'");
        run(&mut admin, &own).await.unwrap();
        // Everything of globex once more as acme's, ids included; the references would lead nowhere and are off.
        let copied = run(
            &mut admin,
            &format!(
                "INSERT INTO {table} ({columns}) SELECT {select} FROM {table} WHERE tenant_id = '{globex}'"
            ),
        )
        .await;
        assert_eq!(
            copied.map_err(|error| error.to_string()),
            Ok(*their_rows as u64),
            "{table}"
        );
        run(&mut admin, "ROLLBACK").await.unwrap();
    }
}

// --------------------------------------------------------------------------------------------------- the tripwire alone

/// Collects the level, the name and the table of each event that has a name.
#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<(tracing::Level, String, String)>>>);

impl<S: tracing::Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        #[derive(Default)]
        struct Named {
            event: Option<String>,
            table: String,
        }
        impl Visit for Named {
            fn record_str(&mut self, field: &Field, value: &str) {
                match field.name() {
                    "event" => self.event = Some(value.to_owned()),
                    "table" => value.clone_into(&mut self.table),
                    _ => {}
                }
            }
            fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
        }
        let mut named = Named::default();
        event.record(&mut named);
        if let Some(name) = named.event {
            let level = *event.metadata().level();
            self.0.lock().unwrap().push((level, name, named.table));
        }
    }
}

#[actix_web::test]
async fn without_any_other_ring_the_tripwire_withholds_what_comes_back_and_says_so() {
    let world = seeded(bypassing()).await;
    assert_bypasses(&world).await;
    let acme = scope(&world).await;
    let events = Events::default();
    let _guard = tenantry_tests::listen(tracing_subscriber::registry().with(events.clone()));
    for subject in subjects(&world).await {
        let Subject {
            table,
            key,
            acme: own,
            ..
        } = &subject;
        let all = leak(format!("SELECT * FROM {table}"));
        let one = leak(format!("SELECT * FROM {table} WHERE {key} <> '{own}' LIMIT 1"));
        let mixed = leak(format!("SELECT * FROM {table} ORDER BY {key} = '{own}' DESC"));
        let own = leak(format!("SELECT * FROM {table} WHERE {key} = '{own}'"));
        macro_rules! trip {
            ($($entity:ident)*) => { match subject.table.as_str() {
                $(stringify!($entity) => {
                    assert_eq!($entity::Entity::default().table_name(), table);
                    for sql in [all, one, mixed] {
                        let found = on_tx(&world.app.ports.units, &acme, async |tx| {
                            tx.raw_sql("a breach").all::<$entity::Entity>(sql, []).await
                        });
                        let name = $entity::Entity::default().table_name();
                        let breach = StoreError::IsolationBreach { table: name, scope: world.acme.id, found: world.globex.id };
                        assert_eq!(found.await.map(|rows| rows.len()), Err(breach), "{sql}");
                        let logged = std::mem::take(&mut *events.0.lock().unwrap());
                        let event = (tracing::Level::ERROR, "isolation_breach".to_owned(), table.clone());
                        assert_eq!(logged, [event], "{sql}");
                    }
                    let found = on_tx(&world.app.ports.units, &acme, async |tx| {
                        tx.raw_sql("no breach").all::<$entity::Entity>(own, []).await
                    });
                    assert_eq!(found.await.map(|rows| rows.len()), Ok(subject.own_rows), "{table}");
                    assert!(events.0.lock().unwrap().is_empty(), "{table}");
                })*
                other => panic!("{other} has no entity here"),
            } };
        }
        for_every_entity!(trip);
    }
}

// ---------------------------------------------------------------------------------------------------------- the attacks

/// What must come of an attack.
#[derive(Debug, Clone, Copy)]
enum Expect {
    /// No row at all, or a refusal.
    Nothing,
    /// A refusal by row-level security (or by a missing grant).
    Refused,
    /// As many rows as the tenant itself has.
    Own,
    /// At the most those, or a refusal.
    OwnAtMost,
}

struct Attack {
    name: &'static str,
    sql: String,
    expect: Expect,
}

impl Attack {
    fn new(name: &'static str, sql: String, expect: Expect) -> Self {
        Self { name, sql, expect }
    }

    /// Runs it and keeps what it did.
    async fn run(self, units: &Units, scope: &TenantScope, subject: &Subject) {
        let sql = leak(self.sql);
        let outcome = on_tx(units, scope, async |tx| {
            tx.raw_sql("an attack").execute(sql, []).await
        })
        .await;
        let refused = matches!(outcome, Err(StoreError::RowSecurity(_)));
        let held = match self.expect {
            Expect::Nothing => refused || outcome == Ok(0),
            Expect::Refused => refused,
            Expect::Own => outcome == Ok(subject.own_rows as u64),
            Expect::OwnAtMost => match &outcome {
                Ok(rows) => *rows <= subject.own_rows as u64,
                Err(error) => refused || matches!(error, StoreError::Reference(_)),
            },
        };
        assert!(
            held,
            "{}: {:?} was expected of\n{sql}\n{outcome:?}",
            self.name, self.expect
        );
    }
}

/// Ways to look at, to count and to guess the other tenant's rows.
fn reads(subject: &Subject) -> Vec<Attack> {
    let Subject {
        table: t,
        key: k,
        acme,
        globex,
        ids,
        can_update,
        ..
    } = subject;
    let nothing = |name, sql| Attack::new(name, sql, Expect::Nothing);
    let own = |name, sql| Attack::new(name, sql, Expect::Own);
    let mut attacks = vec![
        own("no predicate", format!("SELECT * FROM {t}")),
        own(
            "always true",
            format!("SELECT * FROM {t} WHERE true OR {k} = '{globex}'"),
        ),
        nothing("the tenant", format!("SELECT * FROM {t} WHERE {k} = '{globex}'")),
        nothing(
            "anybody else",
            format!("SELECT * FROM {t} WHERE {k} <> '{acme}' OR {k} IS NULL"),
        ),
        nothing("the ids", format!("SELECT * FROM {t} WHERE id = ANY ({ids})")),
        nothing(
            "as text",
            format!("SELECT * FROM {t} r WHERE r::text LIKE '%{globex}%'"),
        ),
        nothing(
            "a CTE",
            format!("WITH c AS (SELECT * FROM {t}) SELECT * FROM c WHERE {k} = '{globex}'"),
        ),
        nothing(
            "a materialised CTE",
            format!("WITH c AS MATERIALIZED (SELECT * FROM {t}) SELECT * FROM c WHERE {k} = '{globex}'"),
        ),
        nothing(
            "a recursive CTE",
            format!(
                "WITH RECURSIVE c (a, b) AS (SELECT id, {k} FROM {t} UNION SELECT r.id, r.{k} FROM {t} r JOIN c ON true) SELECT * FROM c WHERE b = '{globex}'"
            ),
        ),
        nothing(
            "a subquery",
            format!("SELECT * FROM (SELECT * FROM {t} OFFSET 0) s WHERE {k} = '{globex}'"),
        ),
        nothing(
            "IN",
            format!("SELECT 1 WHERE '{globex}' IN (SELECT {k} FROM {t})"),
        ),
        nothing(
            "EXISTS",
            format!("SELECT 1 WHERE EXISTS (SELECT FROM {t} WHERE {k} = '{globex}')"),
        ),
        nothing(
            "EXISTS by id",
            format!("SELECT 1 WHERE EXISTS (SELECT FROM {t} WHERE id = ANY ({ids}))"),
        ),
        nothing(
            "count",
            format!("SELECT 1 FROM (SELECT count(*) AS n FROM {t} WHERE {k} = '{globex}') c WHERE n > 0"),
        ),
        nothing(
            "count of all",
            format!(
                "SELECT 1 FROM (SELECT count(*) AS n FROM {t}) c WHERE n <> {}",
                subject.own_rows
            ),
        ),
        nothing(
            "FILTER",
            format!(
                "SELECT 1 FROM (SELECT count(*) FILTER (WHERE {k} <> '{acme}') AS n FROM {t}) c WHERE n > 0"
            ),
        ),
        nothing(
            "GROUP BY",
            format!("SELECT {k}, count(*) FROM {t} GROUP BY {k} HAVING {k} <> '{acme}'"),
        ),
        nothing(
            "GROUPING SETS",
            format!(
                "SELECT 1 FROM (SELECT {k}, id FROM {t} GROUP BY GROUPING SETS (({k}), (id), ())) g (a, b) WHERE b = ANY ({ids}) OR a = '{globex}'"
            ),
        ),
        nothing(
            "aggregate",
            format!("SELECT 1 FROM (SELECT array_agg(id) AS a FROM {t}) s WHERE a && {ids}"),
        ),
        nothing(
            "JSON",
            format!("SELECT 1 FROM (SELECT jsonb_agg(r)::text AS j FROM {t} r) s WHERE j LIKE '%{globex}%'"),
        ),
        nothing(
            "min and max",
            format!(
                "SELECT 1 FROM (SELECT min({k}::text) AS a, max({k}::text) AS b FROM {t}) s WHERE a <> '{acme}' OR b <> '{acme}'"
            ),
        ),
        nothing(
            "window",
            format!(
                "SELECT 1 FROM (SELECT lag({k}) OVER (ORDER BY id) AS a, lead({k}) OVER (ORDER BY id) AS b FROM {t}) s WHERE '{globex}' IN (a, b)"
            ),
        ),
        nothing(
            "self-join",
            format!("SELECT o.* FROM {t} r JOIN {t} o ON o.{k} <> r.{k}"),
        ),
        nothing(
            "outer join",
            format!(
                "SELECT o.* FROM (VALUES ('{globex}'::uuid)) v (id) LEFT JOIN {t} o ON o.{k} = v.id WHERE o.id IS NOT NULL"
            ),
        ),
        nothing(
            "LATERAL",
            format!(
                "SELECT o.* FROM (VALUES ('{globex}'::uuid)) v (id), LATERAL (SELECT * FROM {t} WHERE {k} = v.id) o"
            ),
        ),
        nothing(
            "UNION",
            format!("(SELECT {k} FROM {t} UNION ALL SELECT {k} FROM {t}) EXCEPT SELECT '{acme}'::uuid"),
        ),
        nothing(
            "INTERSECT",
            format!("SELECT id FROM {t} INTERSECT SELECT unnest({ids})"),
        ),
        nothing(
            "EXCEPT",
            format!("SELECT id FROM {t} EXCEPT SELECT id FROM {t} WHERE {k} = '{acme}'"),
        ),
        nothing(
            "correlated",
            format!(
                "SELECT 1 FROM (SELECT (SELECT count(*) FROM {t} r WHERE r.{k} = v.id) AS n FROM (VALUES ('{globex}'::uuid)) v (id)) s WHERE n > 0"
            ),
        ),
        nothing(
            "TABLESAMPLE",
            format!("SELECT * FROM {t} TABLESAMPLE SYSTEM (100) WHERE {k} = '{globex}'"),
        ),
        nothing(
            "ctid",
            format!(
                "SELECT * FROM {t} WHERE ctid = ANY (ARRAY(SELECT format('(%s,%s)', b, i)::tid FROM generate_series(0, 3) b, generate_series(1, 60) i)) AND {k} <> '{acme}'"
            ),
        ),
        // A predicate that fails for a row it should never be asked about tells that the row is there.
        own(
            "division by zero",
            format!("SELECT * FROM {t} WHERE 1 / (CASE WHEN {k} = '{globex}' THEN 0 ELSE 1 END) = 1"),
        ),
        own(
            "a cast that fails",
            format!(
                "SELECT * FROM {t} WHERE (CASE WHEN {k} = '{globex}' THEN {k}::text ELSE '1' END)::int = 1"
            ),
        ),
        nothing(
            "statistics",
            format!("SELECT * FROM pg_stats WHERE tablename = '{t}'"),
        ),
        nothing("statistics, raw", "SELECT * FROM pg_statistic".to_owned()),
        nothing(
            "file",
            format!("SELECT pg_read_file(pg_relation_filepath('{t}'))"),
        ),
    ];
    for lock in [
        "FOR UPDATE",
        "FOR NO KEY UPDATE",
        "FOR SHARE",
        "FOR KEY SHARE",
        "FOR UPDATE SKIP LOCKED",
    ] {
        attacks.push(nothing(
            "lock",
            format!("SELECT * FROM {t} WHERE {k} = '{globex}' {lock}"),
        ));
    }
    if *can_update {
        attacks.push(own("lock of all", format!("SELECT * FROM {t} FOR UPDATE")));
    }
    attacks
}

/// Ways to change and to take the other tenant's rows.
fn writes(subject: &Subject) -> Vec<Attack> {
    let Subject {
        table: t,
        key: k,
        acme,
        globex,
        ids,
        columns,
        ..
    } = subject;
    let nothing = |name, sql| Attack::new(name, sql, Expect::Nothing);
    let set = "created_at = '2000-01-01'";
    let as_own = columns.replace(&format!("\"{k}\""), &format!("'{acme}'::uuid"));
    let mut attacks = vec![
        Attack::new("update all", format!("UPDATE {t} SET {set}"), Expect::OwnAtMost),
        Attack::new(
            "update all, returning",
            format!("UPDATE {t} SET {set} RETURNING *"),
            Expect::OwnAtMost,
        ),
        nothing("update", format!("UPDATE {t} SET {set} WHERE {k} = '{globex}'")),
        nothing(
            "update by id",
            format!("UPDATE {t} SET {set} WHERE id = ANY ({ids})"),
        ),
        nothing(
            "update, returning",
            format!("UPDATE {t} SET {set} WHERE {k} = '{globex}' RETURNING *"),
        ),
        nothing(
            "update from itself",
            format!("UPDATE {t} r SET {set} FROM {t} o WHERE o.{k} = '{globex}'"),
        ),
        nothing(
            "update from values",
            format!("UPDATE {t} r SET {set} FROM (VALUES ('{globex}'::uuid)) v (id) WHERE r.{k} = v.id"),
        ),
        nothing(
            "update from ids",
            format!("UPDATE {t} r SET {set} FROM unnest({ids}) v (id) WHERE r.id = v.id RETURNING r.*"),
        ),
        nothing(
            "update if there",
            format!("UPDATE {t} SET {set} WHERE EXISTS (SELECT FROM {t} WHERE {k} = '{globex}')"),
        ),
        nothing(
            "update to a subquery",
            format!(
                "UPDATE {t} SET created_at = (SELECT max(created_at) FROM {t} WHERE {k} = '{globex}') WHERE id = ANY ({ids})"
            ),
        ),
        nothing(
            "update in a CTE",
            format!(
                "WITH hit AS (UPDATE {t} SET {set} WHERE {k} = '{globex}' RETURNING *) SELECT * FROM hit"
            ),
        ),
        nothing(
            "update in a CTE nobody reads",
            format!("WITH hit AS (UPDATE {t} SET {set} WHERE id = ANY ({ids})) SELECT 1 WHERE false"),
        ),
        nothing(
            "update and take over",
            format!("UPDATE {t} SET {k} = '{acme}' WHERE {k} = '{globex}'"),
        ),
        nothing("delete", format!("DELETE FROM {t} WHERE {k} = '{globex}'")),
        nothing(
            "delete by id",
            format!("DELETE FROM {t} WHERE id = ANY ({ids}) RETURNING *"),
        ),
        nothing(
            "delete using",
            format!("DELETE FROM {t} r USING (VALUES ('{globex}'::uuid)) v (id) WHERE r.{k} = v.id"),
        ),
        nothing(
            "delete using itself",
            format!("DELETE FROM {t} r USING {t} o WHERE o.{k} = '{globex}'"),
        ),
        nothing(
            "delete in a CTE",
            format!("WITH gone AS (DELETE FROM {t} WHERE {k} = '{globex}' RETURNING *) SELECT * FROM gone"),
        ),
        nothing(
            "delete in a CTE nobody reads",
            format!("WITH gone AS (DELETE FROM {t} WHERE id = ANY ({ids})) SELECT 1 WHERE false"),
        ),
        nothing(
            "move out in a CTE",
            format!(
                "WITH gone AS (DELETE FROM {t} WHERE {k} = '{globex}' RETURNING *) INSERT INTO {t} ({columns}) SELECT {as_own} FROM gone"
            ),
        ),
        nothing(
            "copy as it is",
            format!("INSERT INTO {t} ({columns}) SELECT {columns} FROM {t} WHERE {k} = '{globex}'"),
        ),
        nothing(
            "copy as one's own",
            format!("INSERT INTO {t} ({columns}) SELECT {as_own} FROM {t} WHERE {k} = '{globex}'"),
        ),
        nothing(
            "copy in a CTE",
            format!(
                "WITH c AS (SELECT * FROM {t} WHERE id = ANY ({ids})) INSERT INTO {t} ({columns}) SELECT {as_own} FROM c RETURNING *"
            ),
        ),
    ];
    if subject.merges {
        attacks.extend([
            nothing("merge", format!("MERGE INTO {t} r USING (VALUES ('{globex}'::uuid)) v (id) ON r.{k} = v.id WHEN MATCHED THEN UPDATE SET {set} WHEN NOT MATCHED THEN DO NOTHING")),
            nothing("merge by id", format!("MERGE INTO {t} r USING unnest({ids}) v (id) ON r.id = v.id WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN DO NOTHING")),
        ]);
    }
    attacks
}

/// Ways to put a row into the other tenant.
fn foreign_inserts(subject: &Subject) -> Vec<Attack> {
    let Subject {
        table: t,
        key: k,
        globex,
        columns,
        row,
        can_update,
        ..
    } = subject;
    let refused = |name, sql| Attack::new(name, sql, Expect::Refused);
    let fresh = format!("'{row}'::jsonb || jsonb_build_object('id', gen_random_uuid())");
    let insert = |row: &str| {
        format!("INSERT INTO {t} ({columns}) SELECT {columns} FROM jsonb_populate_record(NULL::{t}, {row})")
    };
    let exact = insert(&format!("'{row}'::jsonb"));
    let mut attacks = vec![
        refused("a new row", insert(&fresh)),
        refused("a new row, returning", format!("{} RETURNING *", insert(&fresh))),
        refused(
            "a new row in a CTE",
            format!("WITH i AS ({}) SELECT 1", insert(&fresh)),
        ),
        refused(
            "a new row unless there",
            format!("{} ON CONFLICT DO NOTHING", insert(&fresh)),
        ),
        // Not "there is such a row": nothing is said about rows of others.
        refused("the row itself", exact.clone()),
        refused(
            "the row itself unless there",
            format!("{exact} ON CONFLICT DO NOTHING"),
        ),
        refused(
            "the row itself unless its key is there",
            format!("{exact} ON CONFLICT ON CONSTRAINT {t}_pkey DO NOTHING"),
        ),
    ];
    if *can_update {
        let update = format!("ON CONFLICT ON CONSTRAINT {t}_pkey DO UPDATE SET created_at = '2000-01-01'");
        attacks.push(refused(
            "the row itself or a change of it",
            format!("{exact} {update}"),
        ));
        attacks.push(refused(
            "the same, returning",
            format!("{exact} {update} RETURNING *"),
        ));
    }
    if subject.merges {
        attacks.push(refused("merge", format!(
            "MERGE INTO {t} r USING (SELECT * FROM jsonb_populate_record(NULL::{t}, {fresh})) v ON r.{k} = '{globex}' AND false \
             WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({})",
            columns.split(", ").map(|column| format!("v.{column}")).collect::<Vec<_>>().join(", ")
        )));
    }
    attacks
}

// ---------------------------------------------------------------------------------------------------------- the helpers

/// A tenant table of the catalogue.
struct Table {
    name: String,
    key: String,
    columns: String,
    can_update: bool,
}

/// A tenant table and what is in it.
struct Subject {
    table: String,
    /// The column that says whose a row is.
    key: String,
    /// All columns that can be written, quoted.
    columns: String,
    can_update: bool,
    /// Whether the server knows MERGE.
    merges: bool,
    acme: String,
    globex: String,
    own_rows: usize,
    own_id: uuid::Uuid,
    their_rows: usize,
    their_ids: Vec<uuid::Uuid>,
    /// Those as SQL.
    ids: String,
    /// One of globex's rows, as JSON for SQL.
    row: String,
}

async fn tables(world: &World) -> Vec<Table> {
    let rows = sqlx::query(
        "SELECT c.relname::text, CASE c.relname WHEN 'tenants' THEN 'id' ELSE 'tenant_id' END, \
         string_agg(quote_ident(a.attname) , ', ' ORDER BY a.attnum), has_table_privilege('tenantry_app', c.oid, 'UPDATE') \
         FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' \
         WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relnamespace = 'public'::regnamespace \
         GROUP BY c.oid, c.relname HAVING c.relname = 'tenants' OR bool_or(a.attname = 'tenant_id') ORDER BY 1",
    )
    .fetch_all(&mut world.database.admin().await)
    .await
    .unwrap();
    // `quote_ident` leaves plain names as they are; here all are to be found again.
    let quoted = |columns: String| {
        let each = columns
            .split(", ")
            .map(|column| format!("\"{}\"", column.trim_matches('"')));
        each.collect::<Vec<_>>().join(", ")
    };
    let table = |row: sqlx::postgres::PgRow| Table {
        name: row.get(0),
        key: row.get(1),
        columns: quoted(row.get(2)),
        can_update: row.get(3),
    };
    let tables: Vec<Table> = rows.into_iter().map(table).collect();
    assert!(tables.len() >= 9, "the catalogue is not read right");
    tables
}

async fn subjects(world: &World) -> Vec<Subject> {
    let mut admin = world.database.admin().await;
    let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
        .fetch_one(&mut admin)
        .await
        .unwrap();
    let mut subjects = Vec::new();
    for Table {
        name,
        key,
        columns,
        can_update,
    } in tables(world).await
    {
        let mut ids = async |tenant: &TenantWorld| -> Vec<uuid::Uuid> {
            let sql = format!("SELECT id FROM {name} WHERE {key} = '{}' ORDER BY id", tenant.id);
            sqlx::query_scalar(AssertSqlSafe(sql))
                .fetch_all(&mut admin)
                .await
                .unwrap()
        };
        let (own, theirs) = (ids(&world.acme).await, ids(&world.globex).await);
        assert!(
            !own.is_empty() && !theirs.is_empty(),
            "{name} is empty: let `SEEDS` put a row into it"
        );
        let list: Vec<String> = theirs.iter().map(|id| format!("'{id}'")).collect();
        let mut subject = Subject {
            table: name,
            key,
            columns,
            can_update,
            merges: version >= 150_000,
            acme: world.acme.id.to_string(),
            globex: world.globex.id.to_string(),
            own_rows: own.len(),
            own_id: own[0],
            their_rows: theirs.len(),
            ids: format!("ARRAY[{}]::uuid[]", list.join(", ")),
            their_ids: theirs,
            row: String::new(),
        };
        subject.row = one_row(&mut admin, &subject, &subject.globex).await;
        subjects.push(subject);
    }
    subjects
}

/// One row of a tenant, as JSON for SQL.
async fn one_row(admin: &mut PgConnection, subject: &Subject, tenant: &str) -> String {
    let sql = format!(
        "SELECT to_jsonb(r)::text FROM {} r WHERE {} = '{tenant}' ORDER BY id LIMIT 1",
        subject.table, subject.key
    );
    let row: String = sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_one(admin)
        .await
        .unwrap();
    row.replace('\'', "''")
}

/// A unique key: its columns but for the tenant, with their types, and its condition.
struct Key {
    name: String,
    columns: Vec<(String, String)>,
    condition: String,
}

/// The unique keys of a table, each of which begins with the tenant.
async fn unique_keys(admin: &mut PgConnection, table: &str) -> Vec<Key> {
    type KeyRow = (String, Vec<String>, Vec<String>, Option<String>);
    let rows: Vec<KeyRow> = sqlx::query_as(
        "SELECT i.indexrelid::regclass::text, array_agg(a.attname::text ORDER BY k.n), \
         array_agg(format_type(a.atttypid, NULL) ORDER BY k.n), pg_get_expr(i.indpred, i.indrelid) \
         FROM pg_index i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, n) \
         JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum \
         WHERE i.indrelid = $1::regclass AND i.indisunique GROUP BY i.indexrelid, i.indpred, i.indrelid ORDER BY 1",
    )
    .bind(table)
    .fetch_all(admin)
    .await
    .unwrap();
    let key = |(name, columns, types, condition): (String, Vec<String>, Vec<String>, Option<String>)| {
        assert_eq!(columns.first().map(String::as_str), Some("tenant_id"), "{name}");
        let columns = columns.into_iter().zip(types).skip(1).collect();
        Key {
            name,
            columns,
            condition: condition
                .map(|condition| format!("WHERE {condition}"))
                .unwrap_or_default(),
        }
    };
    rows.into_iter().map(key).collect()
}

/// A value of a type that no row has.
fn random(kind: &str) -> &'static str {
    match kind {
        "uuid" => "gen_random_uuid()",
        "text" => "gen_random_uuid()::text",
        "bytea" => "sha256(gen_random_uuid()::text::bytea)",
        "bigint" | "integer" => "floor(1000 + random() * 1000000)",
        "timestamp with time zone" => "now() - random() * interval '1 day'",
        other => panic!("say here what a random {other} is"),
    }
}

/// A foreign key between two tenant tables.
#[derive(Debug)]
struct Reference {
    name: String,
    table: String,
    column: String,
    parent: String,
    /// The column of the parent that it refers to, beside the tenant.
    key: String,
}

/// The foreign keys between tenant tables, of one table or of all; each of them is of the tenant and one more column.
async fn references(admin: &mut PgConnection, table: Option<&str>) -> Vec<Reference> {
    let rows: Vec<(String, String, Vec<String>, String, String)> = sqlx::query_as(
        "SELECT c.conname::text, c.conrelid::regclass::text, array_agg(a.attname::text ORDER BY k.n), c.confrelid::regclass::text, \
         (SELECT p.attname::text FROM pg_attribute p WHERE p.attrelid = c.confrelid AND p.attnum = c.confkey[2]) \
         FROM pg_constraint c CROSS JOIN unnest(c.conkey) WITH ORDINALITY k (attnum, n) \
         JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.attnum \
         WHERE c.contype = 'f' AND c.connamespace = 'public'::regnamespace AND c.confrelid <> 'tenants'::regclass \
         AND EXISTS (SELECT FROM pg_attribute t WHERE t.attrelid = c.conrelid AND t.attname = 'tenant_id') \
         AND EXISTS (SELECT FROM pg_attribute t WHERE t.attrelid = c.conrelid AND t.attname = 'tenant_id') \
         AND ($1::text IS NULL OR c.conrelid = $1::regclass) GROUP BY c.oid ORDER BY 1",
    )
    .bind(table)
    .fetch_all(admin)
    .await
    .unwrap();
    let reference = |(name, table, columns, parent, key): (String, String, Vec<String>, String, String)| {
        assert_eq!(columns[0], "tenant_id", "{name}");
        let [_, column] = columns.try_into().unwrap();
        Reference {
            name,
            table,
            column,
            parent,
            key,
        }
    };
    rows.into_iter().map(reference).collect()
}

/// A world in which every tenant table has a row of each tenant.
async fn seeded(options: Options) -> World {
    let world = World::with(options).await;
    seed(&world).await;
    world
}

/// Rows for the tables that a new world has none in, one for each tenant, as far as these tables are there.
const SEEDS: &[(&str, &str)] = &[
    (
        "account_links",
        "INSERT INTO account_links (tenant_id, id, created_at, user_id, purpose, token_hash, email, expires_at) \
         SELECT tenant_id, gen_random_uuid(), now(), id, 'reset_password', sha256('test'), email, now() \
         FROM users WHERE role = 'admin'",
    ),
    (
        "account_notices",
        "INSERT INTO account_notices (tenant_id, id, created_at, user_id, kind, sent_at) \
         SELECT tenant_id, gen_random_uuid(), now(), id, 'new_network', now() FROM users WHERE role = 'admin'",
    ),
    (
        "api_keys",
        "INSERT INTO api_keys (tenant_id, id, created_at, name, user_id, service_account, scopes, allowed_networks, secret_hash, \
         expires_at, notified, updated_at, version) SELECT tenant_id, gen_random_uuid(), now(), 'Key', id, false, '[]', '[]', \
         sha256(email::bytea), now(), 'far', now(), 1 FROM users WHERE role = 'admin'",
    ),
    (
        "audit_blocks",
        // Numbers that differ, so that a row is in nobody's way in the other tenant.
        "INSERT INTO audit_blocks (tenant_id, id, created_at, first_sequence, last_sequence, links, min_at, max_at, cursor_xact, \
         cursor_id) SELECT id, gen_random_uuid(), now(), row_number() OVER (ORDER BY slug), row_number() OVER (ORDER BY slug), \
         sha256('one') || sha256('two'), now(), now(), 0, gen_random_uuid() FROM tenants",
    ),
    (
        "audit_heads",
        "INSERT INTO audit_heads (tenant_id, id, created_at, kind, sequence, hash, kid, public_key, signature) \
         SELECT id, gen_random_uuid(), now(), 'head', 1, sha256('one'), 'key', '', '' FROM tenants",
    ),
    (
        "billing_accounts",
        "INSERT INTO billing_accounts (tenant_id, id, created_at, customer_ref, dunning, dunning_steps, fetches, applied, \
         updated_at, version) SELECT id, gen_random_uuid(), now(), 'cus_' || slug, 'healthy', 0, 0, 0, now(), 1 FROM tenants",
    ),
    (
        "custom_roles",
        "INSERT INTO custom_roles (tenant_id, id, created_at, name, description, base_role, permissions, updated_at, version) \
         SELECT id, gen_random_uuid(), now(), 'r' || md5(slug), '', 'member', '[]', now(), 1 FROM tenants",
    ),
    (
        "data_keys",
        // Numbers that differ, so that a row is in nobody's way in the other tenant.
        "UPDATE data_keys k SET number = o.place FROM (SELECT tenant_id, 100 + row_number() OVER (ORDER BY tenant_id) AS place \
         FROM data_keys) o WHERE o.tenant_id = k.tenant_id",
    ),
    (
        "security_alerts",
        "INSERT INTO security_alerts (tenant_id, id, created_at, rule, subject_kind, subject, count, first_at, last_at, severity, \
         state, evidence, action, open_key, acknowledged_by) SELECT tenant_id, gen_random_uuid(), now(), 'test', 'user', id, 1, now(), \
         now(), 'low', 'open', '[]', 'none', email, id FROM users WHERE role = 'admin'",
    ),
    (
        "security_detections",
        "INSERT INTO security_detections (tenant_id, id, created_at, sequence, counted) \
         SELECT id, gen_random_uuid(), now(), 0, '{}' FROM tenants",
    ),
    (
        "audit_streams",
        "INSERT INTO audit_streams (tenant_id, created_at, sequence, head_sequence) SELECT id, now(), 0, 0 FROM tenants",
    ),
    (
        "event_outbox",
        // What the world has recorded has tickets of its own.
        "DELETE FROM event_outbox; INSERT INTO event_outbox (tenant_id, id, created_at, kind, actor_kind, entity, data) \
         SELECT id, gen_random_uuid(), now(), 'task.created', 'system', 'task', '{}' FROM tenants",
    ),
    (
        "events",
        // Numbers that differ, so that a row is in nobody's way in the other tenant.
        "INSERT INTO events (tenant_id, id, created_at, kind, actor_kind, entity, data, position) SELECT id, gen_random_uuid(), now(), \
         'task.created', 'system', 'task', '{}', row_number() OVER (ORDER BY slug) FROM tenants",
    ),
    (
        "event_consumers",
        "INSERT INTO event_consumers (tenant_id, id, created_at, name, position, updated_at, version) \
         SELECT id, gen_random_uuid(), now(), 'c' || md5(slug), 0, now(), 1 FROM tenants",
    ),
    (
        "event_progress",
        "INSERT INTO event_progress (tenant_id, created_at, published) SELECT id, now(), 1 FROM tenants",
    ),
    (
        "notifications",
        "INSERT INTO notifications (tenant_id, id, created_at, user_id, kind, event_id, occurred_at, actor_kind, entity, parts, in_app) \
         SELECT tenant_id, gen_random_uuid(), now(), id, 'task.assigned', gen_random_uuid(), now(), 'system', 'task', '{}', true \
         FROM users WHERE role = 'admin'",
    ),
    (
        "notification_preferences",
        "INSERT INTO notification_preferences (tenant_id, created_at, user_id, choices, updated_at, version) \
         SELECT tenant_id, now(), id, '{}', now(), 1 FROM users WHERE role = 'admin'",
    ),
    (
        "notification_positions",
        "INSERT INTO notification_positions (tenant_id, created_at, position) SELECT id, now(), 0 FROM tenants",
    ),
    (
        "erasures",
        "INSERT INTO erasures (tenant_id, id, created_at, user_id, addresses, digests, sequence, entries) \
         SELECT tenant_id, gen_random_uuid(), now(), id, '[]', '[]', 0, 0 FROM users WHERE role = 'viewer'",
    ),
    (
        "tenant_domains",
        "INSERT INTO tenant_domains (tenant_id, id, created_at, domain, state, token, claimed_until, updated_at, version) \
         SELECT id, gen_random_uuid(), now(), 'd' || md5(slug) || '.rings-corp.com', 'pending', 't', now(), now(), 1 FROM tenants",
    ),
    (
        "webhook_endpoints",
        "INSERT INTO webhook_endpoints (tenant_id, id, created_at, url, event_types, ordered, signature, header_names, sealed_credentials, \
         enabled, updated_at, version) SELECT id, gen_random_uuid(), now(), 'https://hooks.example.com/' || md5(slug), '[]', false, 'v1', \
         '[]', '', true, now(), 1 FROM tenants",
    ),
    (
        "webhook_deliveries",
        "INSERT INTO webhook_deliveries (tenant_id, created_at, message_id, endpoint_id, kind, position, state) \
         SELECT tenant_id, now(), gen_random_uuid(), id, 'task.created', 1, 'failed' FROM webhook_endpoints",
    ),
    (
        "webhook_attempts",
        "INSERT INTO webhook_attempts (tenant_id, created_at, delivery_id, endpoint_id, number, outcome, latency_ms) \
         SELECT tenant_id, now(), id, endpoint_id, 1, 'refused', 5 FROM webhook_deliveries",
    ),
    (
        "webhook_lanes",
        "INSERT INTO webhook_lanes (tenant_id, created_at, endpoint_id, send_window) SELECT tenant_id, now(), id, 8 FROM webhook_endpoints",
    ),
    (
        "tenant_exports",
        "INSERT INTO tenant_exports (tenant_id, id, created_at, requested_by, person_id, status, rows_written, open_key) \
         SELECT tenant_id, gen_random_uuid(), now(), id, id, 'queued', 0, email FROM users WHERE role = 'admin'",
    ),
    (
        "support_accesses",
        "INSERT INTO support_accesses (tenant_id, id, created_at, operator_id, operator_name, reason, access, minutes, status, \
         preapproved, decided_by, decided_at, lapses_at, expires_at) SELECT tenant_id, gen_random_uuid(), now(), gen_random_uuid(), \
         'Sam', 'a reason', 'write', 5, 'active', false, id, now(), now(), now() + interval '5 minutes' FROM users WHERE role = 'admin'",
    ),
    (
        "support_access_uses",
        "INSERT INTO support_access_uses (tenant_id, id, created_at, support_access_id, operation, entity, requests, last_at) \
         SELECT tenant_id, gen_random_uuid(), now(), id, 'GET /api/v1/tasks', '', 1, now() FROM support_accesses",
    ),
    (
        "invitations",
        "INSERT INTO invitations (tenant_id, id, created_at, invited_by, email, role, token_hash, sent_at, mails, expires_at) \
         SELECT tenant_id, gen_random_uuid(), now(), id, 'invited-' || email, 'viewer', sha256(email::bytea), now(), 1, \
         now() + interval '7 days' FROM users WHERE role = 'admin'",
    ),
    (
        "invoices",
        "INSERT INTO invoices (tenant_id, id, created_at, invoice_ref, customer_ref, currency, total, amount_due, amount_paid, \
         period_start, period_end, attempts, lines, updated_at) SELECT id, gen_random_uuid(), now(), 'in_' || slug, \
         'cus_' || slug, 'usd', 1, 1, 0, now(), now(), 0, '[]', now() FROM tenants",
    ),
    (
        "meter_outbox",
        // Revisions that differ, so that a row is in nobody's way in the other tenant.
        "INSERT INTO meter_outbox (tenant_id, id, created_at, meter, hour, revision, quantity, identifier, state, attempts) \
         SELECT id, gen_random_uuid(), now(), 'api_calls', now(), row_number() OVER (ORDER BY slug), 1, slug, 'pending', 0 FROM tenants",
    ),
    (
        "jobs",
        "INSERT INTO jobs (tenant_id, id, created_at, kind, schema_version, payload, dedupe_key, state, run_at, attempts, \
         max_attempts, actor_type, request_id) SELECT id, gen_random_uuid(), now(), 'test', 1, '{}', slug, 'queued', now(), 0, \
         3, 'system', 'test' FROM tenants",
    ),
    (
        "flag_overrides",
        "INSERT INTO flag_overrides (tenant_id, id, created_at, flag, variant, updated_at, version) \
         SELECT id, gen_random_uuid(), now(), 'flag-' || slug, 'on', now(), 1 FROM tenants",
    ),
    (
        "idempotency_keys",
        "INSERT INTO idempotency_keys (tenant_id, id, created_at, user_id, route, key, fingerprint, role, status, headers, \
         sealed_body, expires_at) SELECT tenant_id, gen_random_uuid(), now(), id, 'POST /', 'test', sha256('test'), role, 201, '[]', \
         'test', now() FROM users WHERE role = 'admin'",
    ),
    (
        "totp_factors",
        "INSERT INTO totp_factors (tenant_id, id, created_at, user_id, sealed_secret) \
         SELECT tenant_id, gen_random_uuid(), now(), id, 'test' FROM users WHERE role = 'admin'",
    ),
    (
        "trusted_devices",
        "INSERT INTO trusted_devices (tenant_id, id, created_at, user_id, token_hash, password_digest, expires_at) \
         SELECT tenant_id, gen_random_uuid(), now(), id, sha256('test'), sha256('test'), now() FROM users WHERE role = 'admin'",
    ),
    (
        "recovery_codes",
        "INSERT INTO recovery_codes (tenant_id, id, created_at, user_id, code_hash) \
         SELECT tenant_id, gen_random_uuid(), now(), id, sha256('test') FROM users WHERE role = 'admin'",
    ),
    (
        "lockouts",
        "INSERT INTO lockouts (tenant_id, created_at, account, kind, place, failures, last_at) \
         SELECT id, now(), substr(sha256(convert_to(id::text, 'UTF8')), 1, 16), 'password', 'anywhere', 1, now() FROM tenants",
    ),
    (
        "mfa_challenges",
        "INSERT INTO mfa_challenges (tenant_id, id, created_at, user_id, password_digest, failures, expires_at) \
         SELECT tenant_id, gen_random_uuid(), now(), id, sha256('test'), 0, now() FROM users WHERE role = 'admin'",
    ),
    (
        "passkeys",
        "INSERT INTO passkeys (tenant_id, id, created_at, user_id, name, credential_id, public_key, sign_count, backup, transports) \
         SELECT tenant_id, gen_random_uuid(), now(), id, 'Laptop', sha256(email::bytea), 'test', 0, 'none', 0 \
         FROM users WHERE role = 'viewer'",
    ),
    (
        "passkey_ceremonies",
        "INSERT INTO passkey_ceremonies (tenant_id, id, created_at, user_id, digest, ends_at) \
         SELECT tenant_id, gen_random_uuid(), now(), id, sha256(email::bytea), now() FROM users WHERE role = 'admin'",
    ),
    (
        "tenant_settings",
        "INSERT INTO tenant_settings (tenant_id, values, secrets, created_at, updated_at, version) \
         SELECT id, '{}', '{}', now(), now(), 1 FROM tenants",
    ),
    (
        "tenant_setting_versions",
        // Numbers that differ, so that a row is in nobody's way in the other tenant.
        "INSERT INTO tenant_setting_versions (tenant_id, version, values, secrets, changed_by, created_at) \
         SELECT tenant_id, row_number() OVER (ORDER BY email), '{}', '{}', id, now() FROM users WHERE role = 'admin'",
    ),
    (
        "brandings",
        "INSERT INTO brandings (tenant_id, primary_color, accent_color, custom_css, created_at, updated_at, version) \
         SELECT id, '#000000', '#ffffff', '', now(), now(), 1 FROM tenants",
    ),
    (
        "usage_events",
        // One in the partition of a month, and one in that of whatever has none.
        "INSERT INTO usage_events (tenant_id, id, created_at, meter, quantity, event_at, source, idempotency_key, origin) \
         SELECT id, gen_random_uuid(), now(), 'api_calls', 1, at, 'test', slug, 'server' \
         FROM tenants, (VALUES (now()), (now() - interval '10 years')) t (at)",
    ),
    (
        "usage_keys",
        "INSERT INTO usage_keys (tenant_id, id, created_at, source, key, payload_hash) \
         SELECT id, gen_random_uuid(), now(), 'test', slug, 'test' FROM tenants",
    ),
    (
        "usage_intake",
        "INSERT INTO usage_intake (tenant_id, created_at, meter, day, events, quantity) \
         SELECT id, now(), slug, now(), 1, 1 FROM tenants",
    ),
    (
        "usage_dirty",
        "INSERT INTO usage_dirty (tenant_id, id, created_at, meter, hour) \
         SELECT id, gen_random_uuid(), now(), 'api_calls', now() FROM tenants",
    ),
    (
        "usage_hours",
        "INSERT INTO usage_hours (tenant_id, created_at, meter, hour, quantity, events, revision, computed_at) \
         SELECT id, now(), slug, now(), 1, 1, 1, now() FROM tenants",
    ),
    (
        "usage_days",
        "INSERT INTO usage_days (tenant_id, created_at, meter, day, quantity, events, revision, computed_at) \
         SELECT id, now(), slug, now(), 1, 1, 1, now() FROM tenants",
    ),
    (
        "quota_counters",
        "INSERT INTO quota_counters (tenant_id, id, created_at, meter, period_start, period_end, used, reserved, leased, \
         alerted_included, alerted_limit) SELECT id, gen_random_uuid(), now(), slug, now(), now() + interval '1 day', 1, 0, 0, 0, 0 \
         FROM tenants",
    ),
    (
        "quota_leases",
        "INSERT INTO quota_leases (tenant_id, id, created_at, counter_id, instance, amount, expires_at, expired) \
         SELECT tenant_id, gen_random_uuid(), now(), id, gen_random_uuid(), 1, now(), false FROM quota_counters",
    ),
    (
        "quota_reservations",
        "INSERT INTO quota_reservations (tenant_id, id, created_at, counter_id, meter, period_start, period_end, amount, \
         state, expires_at) SELECT tenant_id, gen_random_uuid(), now(), id, 'api_calls', period_start, period_end, 1, 'open', now() \
         FROM quota_counters",
    ),
    (
        "quota_alerts",
        "INSERT INTO quota_alerts (tenant_id, id, created_at, counter_id, meter, period_start, period_end, base, percent, \
         amount, used) SELECT tenant_id, gen_random_uuid(), now(), id, meter, period_start, period_end, 'limit', 80, 10, 8 \
         FROM quota_counters",
    ),
];

async fn seed(world: &World) {
    let mut admin = world.database.admin().await;
    let there: BTreeSet<String> = tables(world).await.into_iter().map(|table| table.name).collect();
    for (_, sql) in SEEDS.iter().filter(|(table, _)| there.contains(*table)) {
        run(&mut admin, sql).await.unwrap();
    }
    // For the statistics, which the runtime role must not see.
    run(&mut admin, "ANALYZE").await.unwrap();
}

fn one_connection() -> Options {
    let pool = PoolConfig {
        size: 1,
        acquire_timeout: Duration::from_secs(10),
        ..PoolConfig::default()
    };
    Options {
        pool,
        ..Options::default()
    }
}

fn bypassing() -> Options {
    let clock = Arc::new(ManualClock::default());
    Options {
        bypass_row_security: true,
        payments: Some(Payments(MemoryPayments::new(clock.clone()))),
        clock: Some(clock),
        ..Options::default()
    }
}

async fn scope(world: &World) -> TenantScope {
    world.cx(&world.acme.admin).await.scope().clone()
}

/// Whether the ring really is off: SQL without a predicate counts the rows of both.
async fn assert_bypasses(world: &World) {
    let acme = scope(world).await;
    let seen = undone(&world.app.ports.units, &acme, "SELECT * FROM tenants").await;
    assert_eq!(seen, Ok(2), "row-level security is not off");
}

/// Runs something on the transaction itself.
async fn on_tx<T>(
    units: &Units,
    scope: &TenantScope,
    work: impl AsyncFnOnce(&mut TenantTx) -> Result<T, StoreError> + Clone,
) -> Result<T, StoreError> {
    units
        .write(scope, async |unit: &mut Work| {
            work.clone()(tenant_tx(unit)?).await
        })
        .await
}

/// What a statement comes to; nothing of it is kept.
async fn undone(units: &Units, scope: &TenantScope, sql: &'static str) -> Result<u64, StoreError> {
    let outcome = Mutex::new(None);
    let undone: Result<(), StoreError> = on_tx(units, scope, async |tx| {
        let done = tx.raw_sql("an attack").execute(sql, []).await;
        *outcome.lock().unwrap() = Some(done);
        Err(StoreError::Other("undone".into()))
    })
    .await;
    assert_eq!(undone, Err(StoreError::Other("undone".into())));
    outcome.into_inner().unwrap().unwrap()
}

/// On the only connection of the pool, no tenant is set once its transaction is over.
async fn assert_clean(world: &World, after: &str) {
    assert_eq!(world.pool.max_size(), 1);
    let acme = scope(world).await;
    let is_set = "SELECT 1 WHERE coalesce(current_setting('app.current_tenant', true), '') <> ''";
    let outcome = on_tx(&world.app.ports.units, &acme, async |tx| {
        let within = tx.raw_sql("whether it is set").execute(is_set, []).await?;
        tx.raw_sql("the end of the transaction")
            .execute("COMMIT", [])
            .await?;
        Ok((within, tx.raw_sql("whether it is set").execute(is_set, []).await?))
    });
    assert_eq!(outcome.await, Ok((1, 0)), "{after}");
}

/// Every statement is refused or comes to nothing when the tenant is unset before it.
async fn assert_shows_and_takes_nothing(app: &mut PgConnection, subject: &Subject, unset: Option<&str>) {
    let Subject {
        table,
        key,
        acme,
        columns,
        row,
        ..
    } = subject;
    let insert = |row: &str| {
        format!(
            "INSERT INTO {table} ({columns}) SELECT {columns} FROM jsonb_populate_record(NULL::{table}, {row})"
        )
    };
    let own = format!("'{row}'::jsonb || jsonb_build_object('{key}', '{acme}')");
    for sql in [
        format!("SELECT * FROM {table}"),
        format!("SELECT * FROM {table} WHERE {key} = '{acme}'"),
        format!("UPDATE {table} SET created_at = '2000-01-01'"),
        format!("DELETE FROM {table}"),
        insert(&own),
        insert(&format!("'{row}'::jsonb")),
    ] {
        if let Some(unset) = unset {
            begin(app, acme).await;
            run(app, unset).await.unwrap();
        }
        let outcome = sqlx::raw_sql(AssertSqlSafe(sql.clone()))
            .fetch_all(&mut *app)
            .await;
        match &outcome {
            // What cannot be read as a tenant is an error.
            Err(error) => assert!(
                ["42501", "22P02"].contains(&state(error).as_str()),
                "{unset:?}: {sql}: {error}"
            ),
            Ok(rows) => assert!(rows.is_empty() && !sql.starts_with("INSERT"), "{unset:?}: {sql}"),
        }
        if unset.is_some() {
            run(app, "ROLLBACK").await.unwrap();
            assert_eq!(setting(app).await, "", "{unset:?}: {sql}");
        }
    }
}

/// What the application does at the beginning of a transaction.
async fn begin(app: &mut PgConnection, tenant: &str) {
    run(
        app,
        &format!("BEGIN READ WRITE; SET LOCAL app.current_tenant = '{tenant}'"),
    )
    .await
    .unwrap();
}

async fn run(connection: &mut PgConnection, sql: &str) -> Result<u64, sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await
        .map(|done| done.rows_affected())
}

async fn rows(connection: &mut PgConnection, sql: &str) -> usize {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .fetch_all(connection)
        .await
        .unwrap()
        .len()
}

async fn copy_out(connection: &mut PgConnection, sql: &str) -> String {
    let mut copied = Vec::new();
    let mut stream = connection.copy_out_raw(sql).await.unwrap();
    while let Some(part) = stream.next().await {
        copied.extend_from_slice(&part.unwrap());
    }
    String::from_utf8(copied).unwrap()
}

async fn setting(connection: &mut PgConnection) -> String {
    let sql = "SELECT coalesce(current_setting('app.current_tenant', true), '')";
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
}

fn state(error: &sqlx::Error) -> String {
    let error = error.as_database_error().unwrap_or_else(|| panic!("{error}"));
    error.code().unwrap_or_default().into_owned()
}

/// SQL that a test makes up; the door for raw SQL takes literals only.
fn leak(sql: String) -> &'static str {
    Box::leak(sql.into_boxed_str())
}
