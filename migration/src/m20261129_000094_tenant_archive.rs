use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{APP_ROLE, PLATFORM_ROLE};

/// The functions that read the rows of a tenant for an archive, and write those of one. They run with the rights and under the policies
/// of their caller, the runtime role.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut sql: Vec<String> = FUNCTIONS.map(|(_, body)| body.to_owned()).to_vec();
        sql.extend(FUNCTIONS.map(|(name, _)| format!("REVOKE ALL ON FUNCTION {name} FROM PUBLIC")));
        sql.extend([
            format!("GRANT EXECUTE ON FUNCTION {TABLES} TO {APP_ROLE}, {PLATFORM_ROLE}"),
            format!("GRANT EXECUTE ON FUNCTION {OPEN}, {WRITE} TO {APP_ROLE}"),
        ]);
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = FUNCTIONS.map(|(name, _)| format!("DROP FUNCTION {name}"));
        execute_all(manager, &sql).await
    }
}

const TABLES: &str = "tenant_archive_tables()";
const OPEN: &str = "tenant_archive_open(text, text[])";
const WRITE: &str = "tenant_archive_write(text, jsonb, jsonb, boolean)";

const FUNCTIONS: [(&str, &str); 3] = [(TABLES, TABLES_SQL), (OPEN, OPEN_SQL), (WRITE, WRITE_SQL)];

/// All tables that have rows of tenants, as the catalogue describes them, so that an archive forgets none: the tenant itself first, and
/// each table behind those that it refers to.
pub(crate) const TABLES_SQL: &str = "\
CREATE OR REPLACE FUNCTION tenant_archive_tables(
    OUT name text, OUT columns jsonb, OUT key text[], OUT refers jsonb, OUT changes boolean
) RETURNS SETOF record LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE tables AS (
        SELECT c.oid, c.relname::text AS name FROM pg_class c
         WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
           AND (c.relname = 'tenants' OR EXISTS (SELECT FROM pg_attribute a
                 WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped))
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
           (SELECT jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, NULL),
                       'nullable', NOT a.attnotnull, 'generated', a.attgenerated <> '', 'default', a.atthasdef) ORDER BY a.attnum)
              FROM pg_attribute a WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped),
           (SELECT array_agg(a.attname::text ORDER BY k.place) FROM pg_index i
              CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
              JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
             WHERE i.indrelid = t.oid AND i.indisprimary),
           (SELECT coalesce(jsonb_agg(jsonb_build_object('table', p.name, 'columns', (
                       SELECT jsonb_agg(a.attname ORDER BY k.place) FROM unnest(f.conkey) WITH ORDINALITY AS k (number, place)
                         JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.number)) ORDER BY f.conname), '[]')
              FROM pg_constraint f JOIN tables p ON p.oid = f.confrelid WHERE f.conrelid = t.oid AND f.contype = 'f'),
           has_table_privilege('tenantry_app', t.oid, 'UPDATE')
      FROM tables t JOIN deepest d ON d.oid = t.oid
     ORDER BY t.name <> 'tenants', d.depth, t.name
$$";

/// Opens the cursor `tenant_archive` over the rows of the tenant that is set, in one table, as JSON and by the primary key.
const OPEN_SQL: &str = "\
CREATE OR REPLACE FUNCTION tenant_archive_open(in_table text, left_out text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenant uuid := nullif(current_setting('app.current_tenant', true), '')::uuid;
    opened refcursor := 'tenant_archive';
    sorted text;
BEGIN
    SELECT string_agg(format('r.%I', k.name), ', ' ORDER BY k.place) INTO sorted
      FROM public.tenant_archive_tables() t CROSS JOIN LATERAL unnest(t.key) WITH ORDINALITY AS k (name, place)
     WHERE t.name = in_table;
    IF sorted IS NULL THEN
        RAISE EXCEPTION 'there is no table % of tenants with a primary key', in_table;
    END IF;
    OPEN opened NO SCROLL FOR EXECUTE format('SELECT (to_jsonb(r) - $1)::text AS line FROM public.%I r WHERE r.%I = $2 ORDER BY %s',
        in_table, CASE in_table WHEN 'tenants' THEN 'id' ELSE 'tenant_id' END, sorted) USING left_out, tenant;
END $$";

/// Writes a batch of rows of the tenant that is set, into one table: rows that are missing are inserted, with what `fills` has for
/// columns that the archive leaves out; with `replace` rows that differ are changed to what the archive has. Doing it twice is the
/// same as once.
pub(crate) const WRITE_SQL: &str = "\
CREATE OR REPLACE FUNCTION tenant_archive_write(
    in_table text, in_rows jsonb, fills jsonb, replace boolean, OUT inserted bigint, OUT replaced bigint
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t record;
    given text[];
    same text;
    into_columns text;
    from_columns text;
    changes text;
    others text[];
BEGIN
    SELECT a.* INTO STRICT t FROM public.tenant_archive_tables() a WHERE a.name = in_table;
    SELECT array_agg(c ->> 'name') INTO given FROM jsonb_array_elements(t.columns) c
     WHERE (in_rows -> 0) ? (c ->> 'name') AND NOT (c ->> 'generated')::boolean;
    SELECT array_agg(c ->> 'name') INTO others FROM jsonb_array_elements(t.columns) c WHERE NOT (c ->> 'name') = ANY (given);
    SELECT string_agg(format('o.%1$I = r.%1$I', k), ' AND ') INTO same FROM unnest(t.key) k;
    SELECT string_agg(format('%1$I', c), ', '), string_agg(format('r.%1$I', c), ', ') INTO into_columns, from_columns
      FROM unnest(given || ARRAY(SELECT jsonb_object_keys(fills))) c;
    SELECT string_agg(format('%1$I = r.%1$I', c), ', ') INTO changes FROM unnest(given) c WHERE NOT c = ANY (t.key);
    replaced := 0;
    IF replace AND t.changes AND changes IS NOT NULL THEN
        EXECUTE format('UPDATE public.%1$I o SET %2$s FROM jsonb_populate_recordset(NULL::public.%1$I, $1) r WHERE %3$s '
            'AND to_jsonb(o) - $2 IS DISTINCT FROM to_jsonb(r) - $2', in_table, changes, same) USING in_rows, coalesce(others, '{}');
        GET DIAGNOSTICS replaced = ROW_COUNT;
    END IF;
    EXECUTE format('INSERT INTO public.%1$I (%2$s) SELECT %3$s FROM jsonb_array_elements($1) e '
        'CROSS JOIN LATERAL jsonb_populate_record(NULL::public.%1$I, e || $2) r '
        'WHERE NOT EXISTS (SELECT FROM public.%1$I o WHERE %4$s)', in_table, into_columns, from_columns, same) USING in_rows, fills;
    GET DIAGNOSTICS inserted = ROW_COUNT;
END $$";
