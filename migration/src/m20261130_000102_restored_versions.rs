use sea_orm_migration::prelude::*;

use crate::m20261129_000094_tenant_archive::WRITE_SQL as FORMER;
use crate::tenant_table::execute_all;

/// A restored row gets a version that it never had, so that a version which a caller has read before does not match it again.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &[WRITE_SQL.to_owned()]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &[FORMER.to_owned()]).await
    }
}

/// As before, but for `version` where a restoration writes (`replace`) and rows can be changed: a changed row gets one that is greater
/// than its own and that of the archive. Of a missing row nobody knows what it had, so it gets the seconds since 1970, which no row has
/// reached by its changes. Rows that differ in nothing else are equal.
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
    versions text[];
BEGIN
    SELECT a.* INTO STRICT t FROM public.tenant_archive_tables() a WHERE a.name = in_table;
    SELECT array_agg(c ->> 'name') INTO given FROM jsonb_array_elements(t.columns) c
     WHERE (in_rows -> 0) ? (c ->> 'name') AND NOT (c ->> 'generated')::boolean;
    SELECT array_agg(c ->> 'name') INTO others FROM jsonb_array_elements(t.columns) c WHERE NOT (c ->> 'name') = ANY (given);
    SELECT coalesce(array_agg(c ->> 'name'), '{}') INTO versions FROM jsonb_array_elements(t.columns) c
     WHERE replace AND t.changes AND c ->> 'name' = 'version' AND c ->> 'type' = 'bigint' AND NOT (c ->> 'nullable')::boolean;
    SELECT string_agg(format('o.%1$I = r.%1$I', k), ' AND ') INTO same FROM unnest(t.key) k;
    SELECT string_agg(format('%1$I', c), ', '), string_agg(CASE WHEN c = ANY (versions)
           THEN 'greatest(r.version + 1, extract(epoch FROM now())::bigint)' ELSE format('r.%1$I', c) END, ', ') INTO into_columns, from_columns
      FROM unnest(given || ARRAY(SELECT jsonb_object_keys(fills))) c;
    SELECT string_agg(CASE WHEN c = ANY (versions) THEN 'version = greatest(o.version, r.version) + 1'
           ELSE format('%1$I = r.%1$I', c) END, ', ') INTO changes FROM unnest(given) c WHERE NOT c = ANY (t.key);
    replaced := 0;
    IF replace AND t.changes AND changes IS NOT NULL THEN
        EXECUTE format('UPDATE public.%1$I o SET %2$s FROM jsonb_populate_recordset(NULL::public.%1$I, $1) r WHERE %3$s '
            'AND to_jsonb(o) - $2 IS DISTINCT FROM to_jsonb(r) - $2', in_table, changes, same) USING in_rows, coalesce(others, '{}') || versions;
        GET DIAGNOSTICS replaced = ROW_COUNT;
    END IF;
    EXECUTE format('INSERT INTO public.%1$I (%2$s) SELECT %3$s FROM jsonb_array_elements($1) e '
        'CROSS JOIN LATERAL jsonb_populate_record(NULL::public.%1$I, e || $2) r '
        'WHERE NOT EXISTS (SELECT FROM public.%1$I o WHERE %4$s)', in_table, into_columns, from_columns, same) USING in_rows, fills;
    GET DIAGNOSTICS inserted = ROW_COUNT;
END $$";
