use sea_orm_migration::prelude::*;

use crate::tenant_table::{execute_all, purge_policies};
use crate::{APP_ROLE, OWNER_ROLE, PLATFORM_ROLE, policy_expression};

/// The functions that mark, restore and erase the rows of a tenant, and what is left of one that was purged.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut sql = vec![TOMBSTONES.to_owned(), PURGED_AT.to_owned()];
        sql.extend(FUNCTIONS.map(|(_, body)| body.to_owned()));
        sql.extend(FUNCTIONS.map(|(name, _)| format!("REVOKE ALL ON FUNCTION {name} FROM PUBLIC")));
        sql.extend([
            format!("REVOKE ALL ON TABLE tenant_tombstones FROM PUBLIC, {APP_ROLE}, {PLATFORM_ROLE}"),
            format!("GRANT SELECT ON TABLE tenant_tombstones TO {PLATFORM_ROLE}"),
            format!("GRANT EXECUTE ON FUNCTION tenant_row_tables() TO {PLATFORM_ROLE}"),
            format!("GRANT EXECUTE ON FUNCTION {STEP} TO {APP_ROLE}"),
            format!("GRANT EXECUTE ON FUNCTION {ERASE}, {BURY} TO {PLATFORM_ROLE}"),
        ]);
        sql.extend(OF_TENANTS.map(tenants_policy));
        sql.push(of_former_tables());
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut sql: Vec<String> = FUNCTIONS
            .iter()
            .rev()
            .map(|(name, _)| format!("DROP FUNCTION {name}"))
            .collect();
        let policies = OF_TENANTS.map(|command| {
            let name = command.to_lowercase();
            format!("DROP POLICY tenants_purge_{name} ON tenants")
        });
        sql.extend(policies);
        sql.push(DROP_POLICIES.to_owned());
        sql.push("DROP TABLE tenant_tombstones".to_owned());
        execute_all(manager, &sql).await
    }
}

/// Not a [`TenantTable`](crate::TenantTable): it outlives the tenant, so its `id` is no foreign key.
const TOMBSTONES: &str = "\
CREATE TABLE tenant_tombstones (
    id uuid NOT NULL,
    deleted_at timestamptz NOT NULL,
    purged_at timestamptz NOT NULL,
    row_counts jsonb NOT NULL,
    hash text NOT NULL,
    CONSTRAINT tenant_tombstones_pkey PRIMARY KEY (id),
    CONSTRAINT tenant_tombstones_row_counts_check CHECK (jsonb_typeof(row_counts) = 'object'),
    CONSTRAINT tenant_tombstones_hash_check CHECK (hash ~ '^[0-9a-f]{64}$')
)";

const PURGED_AT: &str = "CREATE INDEX tenant_tombstones_purged_at_idx ON tenant_tombstones (purged_at, id)";

const STEP: &str = "tenant_rows_step(text, text, uuid, integer)";
const ERASE: &str = "tenant_rows_erase(uuid, text, uuid, integer)";
const BURY: &str = "tenant_bury(uuid, timestamptz)";

const FUNCTIONS: [(&str, &str); 4] = [
    ("tenant_row_tables()", TABLES_SQL),
    (STEP, STEP_SQL),
    (ERASE, ERASE_SQL),
    (BURY, BURY_SQL),
];

/// The commands that the functions of the owner need on the row of the tenant.
const OF_TENANTS: [&str; 3] = ["SELECT", "UPDATE", "DELETE"];

fn tenants_policy(command: &str) -> String {
    let rule = policy_expression("id");
    let clauses = match command {
        "UPDATE" => format!("USING ({rule}) WITH CHECK ({rule})"),
        _ => format!("USING ({rule})"),
    };
    let name = command.to_lowercase();
    format!("CREATE POLICY tenants_purge_{name} ON tenants FOR {command} TO {OWNER_ROLE} {clauses}")
}

/// Tables that were created before [`TenantTable`](crate::TenantTable) gave the owner its policies: those of services that embed
/// the product too.
fn of_former_tables() -> String {
    let policies = purge_policies("%1$I", "%1$s");
    let create: String = policies
        .iter()
        .map(|sql| format!("            EXECUTE format($sql${sql}$sql$, of_table);\n"))
        .collect();
    format!(
        "DO $do$
DECLARE
    of_table text;
BEGIN
    FOR of_table IN SELECT t.name FROM tenant_row_tables() t WHERE NOT t.by_runtime LOOP
        IF NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = format('public.%I', of_table)::regclass
                          AND p.polname = of_table || '_purge') THEN
{create}        END IF;
    END LOOP;
END $do$"
    )
}

const DROP_POLICIES: &str = "\
DO $do$
DECLARE
    one record;
BEGIN
    FOR one IN SELECT p.polname AS name, p.polrelid::regclass AS of_table FROM pg_policy p
                 JOIN pg_class c ON c.oid = p.polrelid
                WHERE p.polname IN (c.relname || '_purge', c.relname || '_purge_select') LOOP
        EXECUTE format('DROP POLICY %I ON %s', one.name, one.of_table);
    END LOOP;
END $do$";

/// All tables that have rows of tenants, as the catalogue says, so that none can be forgotten. Those that refer to others come
/// before them; a circle of references ends the count of steps, and the rows are tried in the order that there is.
const TABLES_SQL: &str = "\
CREATE OR REPLACE FUNCTION tenant_row_tables(OUT name text, OUT soft boolean, OUT by_runtime boolean) RETURNS SETOF record
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE tables AS (
        SELECT c.oid, c.relname::text AS name FROM pg_class c
          JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    ), refers AS (
        SELECT DISTINCT k.conrelid AS child, k.confrelid AS parent FROM pg_constraint k
          JOIN tables c ON c.oid = k.conrelid JOIN tables p ON p.oid = k.confrelid
         WHERE k.contype = 'f' AND k.conrelid <> k.confrelid
    ), depths (oid, depth) AS (
        SELECT t.oid, 0 FROM tables t
         UNION
        SELECT r.child, d.depth + 1 FROM depths d JOIN refers r ON r.parent = d.oid WHERE d.depth < 32
    ), deepest AS (
        SELECT d.oid, max(d.depth) AS depth FROM depths d GROUP BY d.oid
    )
    SELECT t.name,
           EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attname = 'deleted_at' AND NOT a.attisdropped),
           has_table_privilege('tenantry_app', t.oid, 'DELETE')
      FROM tables t JOIN deepest d ON d.oid = t.oid
     ORDER BY d.depth DESC, t.name
$$";

/// One batch of the rows of the tenant that is set, in one table: marks them, takes the mark off, or erases them. `seen` is NULL
/// where this is not to be done: the state of the tenant decides, which the transaction holds until it ends. So batches of a tenant
/// come one after the other, and one that is restored loses no row. It runs with the rights and under the policies of its caller.
///
/// Rows that were deleted before the tenant have another `deleted_at`, and stay as they are.
pub(crate) const STEP_SQL: &str = "\
CREATE OR REPLACE FUNCTION tenant_rows_step(
    in_table text, work text, behind uuid, at_most integer, OUT last uuid, OUT seen integer, OUT done integer
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenant uuid := nullif(current_setting('app.current_tenant', true), '')::uuid;
    marked timestamptz;
    keyed boolean;
    query text;
    chosen text;
BEGIN
    SELECT t.deleted_at INTO marked FROM public.tenants t
     WHERE t.id = tenant AND t.row_work = work AND t.deleted_at IS NOT NULL
       AND t.status = CASE work WHEN 'purge' THEN 'purged' ELSE 'deleted' END
       FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    keyed := EXISTS (SELECT FROM pg_attribute a
        WHERE a.attrelid = format('public.%I', in_table)::regclass AND a.attname = 'id' AND a.atttypid = 'uuid'::regtype
          AND NOT a.attisdropped);
    -- Rows are visited in the order of their ids, so that none is visited twice.
    query := CASE WHEN keyed THEN
        'WITH batch AS MATERIALIZED (SELECT r.id FROM public.%1$I r WHERE r.tenant_id = $1 AND r.id > $2 ORDER BY r.id LIMIT $3)'
    ELSE
        'WITH batch AS MATERIALIZED (SELECT NULL::uuid AS id, r.ctid AS place, r.tableoid AS part FROM public.%1$I r '
        'WHERE r.tenant_id = $1' || CASE work WHEN 'delete' THEN ' AND r.deleted_at IS NULL' WHEN 'restore' THEN
        ' AND r.deleted_at = $4' ELSE '' END || ' LIMIT $3)'
    END;
    chosen := 'r.tenant_id = $1 AND ' || CASE WHEN keyed THEN 'r.id = batch.id'
        ELSE 'r.ctid = batch.place AND r.tableoid = batch.part' END;
    query := query || ', changed AS (' || CASE work
        WHEN 'purge' THEN 'DELETE FROM public.%1$I r USING batch WHERE ' || chosen
        WHEN 'delete' THEN 'UPDATE public.%1$I r SET deleted_at = $4 FROM batch WHERE r.deleted_at IS NULL AND ' || chosen
        WHEN 'restore' THEN 'UPDATE public.%1$I r SET deleted_at = NULL FROM batch WHERE r.deleted_at = $4 AND ' || chosen
        END || ' RETURNING 1) SELECT (SELECT b.id FROM batch b ORDER BY b.id DESC LIMIT 1), (SELECT count(*) FROM batch b), '
        '(SELECT count(*) FROM changed c) WHERE $4 IS NOT NULL';
    EXECUTE format(query, in_table) INTO last, seen, done
      USING tenant, coalesce(behind, '00000000-0000-0000-0000-000000000000'), at_most, marked;
    IF done > 0 THEN
        UPDATE public.tenants t
           SET row_counts = t.row_counts || jsonb_build_object(in_table, coalesce((t.row_counts ->> in_table)::bigint, 0) + done)
         WHERE t.id = tenant;
    END IF;
END $$";

/// Erases a batch of rows that the runtime role may not delete, such as those of the audit log. It runs as the owner of the tables,
/// who is held by row-level security as well: its policies show it rows of the tenant that is set, and it sets the one whose
/// state says that its rows are to be erased.
const ERASE_SQL: &str = "\
CREATE OR REPLACE FUNCTION tenant_rows_erase(
    which uuid, in_table text, behind uuid, at_most integer, OUT last uuid, OUT seen integer, OUT done integer
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    former text := current_setting('app.current_tenant', true);
BEGIN
    PERFORM set_config('app.current_tenant', which::text, true);
    SELECT s.last, s.seen, s.done INTO last, seen, done
      FROM public.tenant_rows_step(in_table, 'purge', behind, at_most) s;
    PERFORM set_config('app.current_tenant', coalesce(former, ''), true);
END $$";

/// Erases a tenant that has no more rows, with what the tables of the platform hold of it (their columns `of_tenant`), and leaves a
/// tombstone. A row that is left makes it fail, by its foreign key. Its slug and subdomain are free at once.
const BURY_SQL: &str = "\
CREATE OR REPLACE FUNCTION tenant_bury(which uuid, moment timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    former text := current_setting('app.current_tenant', true);
    tenant record;
    one record;
    counts text;
BEGIN
    PERFORM set_config('app.current_tenant', which::text, true);
    SELECT t.id, t.deleted_at, t.row_counts INTO tenant FROM public.tenants t
     WHERE t.id = which AND t.status = 'purged' AND t.row_work = 'purge' AND t.deleted_at IS NOT NULL FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM set_config('app.current_tenant', coalesce(former, ''), true);
        RETURN false;
    END IF;
    FOR one IN SELECT c.relname AS name FROM pg_class c
                 JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'of_tenant' AND NOT a.attisdropped
                WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
                ORDER BY c.relname LOOP
        EXECUTE format('DELETE FROM public.%I WHERE of_tenant = $1', one.name) USING which;
    END LOOP;
    SELECT string_agg(k.key || '=' || k.value, ',' ORDER BY k.key COLLATE \"C\") INTO counts
      FROM jsonb_each_text(tenant.row_counts) k;
    INSERT INTO public.tenant_tombstones AS s (id, deleted_at, purged_at, row_counts, hash)
    VALUES (which, tenant.deleted_at, moment, tenant.row_counts, encode(sha256(convert_to(concat(which, '|',
        to_char(tenant.deleted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), '|',
        to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), '|', counts), 'UTF8')), 'hex'))
    ON CONFLICT (id) DO UPDATE
       SET deleted_at = EXCLUDED.deleted_at, purged_at = EXCLUDED.purged_at, row_counts = EXCLUDED.row_counts, hash = EXCLUDED.hash;
    DELETE FROM public.tenants WHERE id = which;
    DELETE FROM public.tenant_names WHERE of_tenant = which;
    PERFORM set_config('app.current_tenant', coalesce(former, ''), true);
    RETURN true;
END $$";
