use sea_orm_migration::prelude::*;

use crate::m20261129_000089_audit_chain::RETAIN as FORMER_RETAIN;
use crate::m20261129_000092_tenant_rows::STEP_SQL as FORMER_STEP;
use crate::m20261130_000100_erasures::{AUDIT_SQL as FORMER_AUDIT, ROWS_SQL as FORMER_ROWS};
use crate::m20261130_000102_restored_versions::WRITE_SQL as FORMER_WRITE;
use crate::tenant_table::execute_all;
use crate::{APP_ROLE, OWNER_ROLE};

/// Batches that find the rows they change by their places (`ctid`). The planner expects one row of a tenant that its statistics do not have,
/// such as one that was filled since the last ANALYZE, and joined a batch with all rows of the tenant: batches of 1,000 rows were quadratic.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut sql = vec![
            PLACES_SQL.to_owned(),
            format!("REVOKE ALL ON FUNCTION {PLACES} FROM PUBLIC"),
            format!("GRANT EXECUTE ON FUNCTION {PLACES} TO {APP_ROLE}, {OWNER_ROLE}"),
        ];
        sql.extend([STEP_SQL, WRITE_SQL, RETAIN, AUDIT_SQL, ROWS_SQL].map(str::to_owned));
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let former = [
            FORMER_STEP,
            FORMER_WRITE,
            FORMER_RETAIN,
            FORMER_AUDIT,
            FORMER_ROWS,
        ];
        let mut sql = former.map(str::to_owned).to_vec();
        sql.push(format!("DROP FUNCTION {PLACES}"));
        execute_all(manager, &sql).await
    }
}

const PLACES: &str = "tenant_row_places(tid[], oid[])";

/// The places of a batch, numbered from 1. The planner expects one row (`ROWS 1`, and the setting keeps the function from being inlined),
/// so that each place is looked up by a TID scan, whatever the statistics say of the table: any other path costs more than one page.
const PLACES_SQL: &str = "\
CREATE OR REPLACE FUNCTION tenant_row_places(places tid[], parts oid[], OUT place tid, OUT part oid, OUT nth bigint)
RETURNS SETOF record LANGUAGE sql STABLE ROWS 1 SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.place, p.part, p.nth FROM unnest(places, parts) WITH ORDINALITY AS p (place, part, nth)
$$";

/// As before, but with the places of the rows. A row that another transaction moves between the choice of the batch and its change is found
/// by another pass over the same ids. The batch takes no locks: the owner, who erases append-only tables, has no policy for UPDATE there,
/// which a lock needs.
const STEP_SQL: &str = "\
CREATE OR REPLACE FUNCTION tenant_rows_step(
    in_table text, work text, behind uuid, at_most integer, OUT last uuid, OUT seen integer, OUT done integer
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenant uuid := nullif(current_setting('app.current_tenant', true), '')::uuid;
    marked timestamptz;
    keyed boolean;
    wanted text := CASE work WHEN 'delete' THEN 'r.deleted_at IS NULL' WHEN 'restore' THEN 'r.deleted_at = $4' ELSE 'true' END;
    batch text;
    change text;
    one record;
    through uuid := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
    changed integer;
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
    batch := 'WITH batch AS MATERIALIZED (SELECT ' || CASE WHEN keyed THEN 'r.id' ELSE 'NULL::uuid AS id' END
        || ', r.ctid AS place, r.tableoid AS part, ' || wanted || ' AS wanted FROM public.%1$I r WHERE r.tenant_id = $1 AND '
        || CASE WHEN keyed THEN 'r.id > $2 AND r.id <= $5 ORDER BY r.id' ELSE wanted END || ' LIMIT $3) '
        'SELECT (SELECT b.id FROM batch b ORDER BY b.id DESC LIMIT 1) AS last, count(*) AS seen, '
        'count(*) FILTER (WHERE b.wanted) AS wanted, array_agg(b.id) FILTER (WHERE b.wanted) AS ids, '
        'array_agg(b.place) FILTER (WHERE b.wanted) AS places, array_agg(b.part) FILTER (WHERE b.wanted) AS parts FROM batch b';
    change := CASE work WHEN 'purge' THEN 'DELETE FROM public.%1$I r USING '
        ELSE 'UPDATE public.%1$I r SET deleted_at = ' || CASE work WHEN 'delete' THEN '$4' ELSE 'NULL' END || ' FROM ' END
        || 'public.tenant_row_places($2, $3) p WHERE r.tenant_id = $1 AND r.ctid = p.place AND r.tableoid = p.part AND ' || wanted
        || CASE WHEN keyed THEN ' AND r.id = ($5)[p.nth]' ELSE '' END;
    done := 0;
    FOR pass IN 1..8 LOOP
        EXECUTE format(batch, in_table) INTO one
          USING tenant, coalesce(behind, '00000000-0000-0000-0000-000000000000'), at_most, marked, through;
        IF pass = 1 THEN
            last := one.last;
            seen := one.seen;
            through := coalesce(last, through);
        END IF;
        changed := 0;
        IF one.wanted > 0 THEN
            EXECUTE format(change, in_table) USING tenant, one.places, one.parts, marked, one.ids;
            GET DIAGNOSTICS changed = ROW_COUNT;
            done := done + changed;
        END IF;
        EXIT WHEN changed = one.wanted;
        IF pass = 8 THEN
            RAISE EXCEPTION 'rows of the table % are changed while the rows of the tenant follow its state', in_table
                USING ERRCODE = 'serialization_failure';
        END IF;
    END LOOP;
    IF done > 0 THEN
        UPDATE public.tenants t
           SET row_counts = t.row_counts || jsonb_build_object(in_table, coalesce((t.row_counts ->> in_table)::bigint, 0) + done)
         WHERE t.id = tenant;
    END IF;
END $$";

/// As before, but rows are looked up one by one in the index of the primary key. The range and the order by its last column make the planner
/// take that index: for equality alone all indexes led by the tenant cost the same, where it expects one row of the tenant. Rows that are
/// replaced are locked. Of two imports of one archive at once neither fails because the other one has inserted a row first.
const WRITE_SQL: &str = "\
CREATE OR REPLACE FUNCTION tenant_archive_write(
    in_table text, in_rows jsonb, fills jsonb, replace boolean, OUT inserted bigint, OUT replaced bigint
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    t record;
    given text[];
    same text;
    look_up text;
    into_columns text;
    from_columns text;
    changes text;
    others text[];
    versions text[];
    differ record;
BEGIN
    SELECT a.* INTO STRICT t FROM public.tenant_archive_tables() a WHERE a.name = in_table;
    SELECT array_agg(c ->> 'name') INTO given FROM jsonb_array_elements(t.columns) c
     WHERE (in_rows -> 0) ? (c ->> 'name') AND NOT (c ->> 'generated')::boolean;
    SELECT array_agg(c ->> 'name') INTO others FROM jsonb_array_elements(t.columns) c WHERE NOT (c ->> 'name') = ANY (given);
    SELECT coalesce(array_agg(c ->> 'name'), '{}') INTO versions FROM jsonb_array_elements(t.columns) c
     WHERE replace AND t.changes AND c ->> 'name' = 'version' AND c ->> 'type' = 'bigint' AND NOT (c ->> 'nullable')::boolean;
    SELECT string_agg(format('o.%1$I = r.%1$I', k.name), ' AND '), string_agg(format(CASE WHEN k.place = cardinality(t.key)
           THEN 'o.%1$I >= r.%1$I AND o.%1$I <= r.%1$I %%s ORDER BY o.%1$I LIMIT 1' ELSE 'o.%1$I = r.%1$I' END, k.name), ' AND ' ORDER BY k.place)
      INTO same, look_up FROM unnest(t.key) WITH ORDINALITY AS k (name, place);
    SELECT string_agg(format('%1$I', c), ', '), string_agg(CASE WHEN c = ANY (versions)
           THEN 'greatest(r.version + 1, extract(epoch FROM now())::bigint)' ELSE format('r.%1$I', c) END, ', ') INTO into_columns, from_columns
      FROM unnest(given || ARRAY(SELECT jsonb_object_keys(fills))) c;
    SELECT string_agg(CASE WHEN c = ANY (versions) THEN 'version = greatest(o.version, r.version) + 1'
           ELSE format('%1$I = r.%1$I', c) END, ', ') INTO changes FROM unnest(given) c WHERE NOT c = ANY (t.key);
    replaced := 0;
    IF replace AND t.changes AND changes IS NOT NULL THEN
        EXECUTE format('SELECT array_agg(f.place) AS places, array_agg(f.part) AS parts, jsonb_agg(e.one) AS rows '
            'FROM jsonb_array_elements($1) AS e (one) CROSS JOIN LATERAL jsonb_populate_record(NULL::public.%1$I, e.one) r '
            'CROSS JOIN LATERAL (SELECT o.ctid AS place, o.tableoid AS part FROM public.%1$I o WHERE %2$s FOR NO KEY UPDATE) f', in_table,
            format(look_up, 'AND to_jsonb(o) - $2 IS DISTINCT FROM to_jsonb(r) - $2'))
          INTO differ USING in_rows, coalesce(others, '{}') || versions;
        IF differ.rows IS NOT NULL THEN
            EXECUTE format('UPDATE public.%1$I o SET %2$s FROM public.tenant_row_places($1, $2) p '
                'CROSS JOIN LATERAL jsonb_populate_record(NULL::public.%1$I, $3 -> (p.nth - 1)::integer) r '
                'WHERE o.ctid = p.place AND o.tableoid = p.part AND %3$s', in_table, changes, same)
              USING differ.places, differ.parts, differ.rows;
            GET DIAGNOSTICS replaced = ROW_COUNT;
        END IF;
    END IF;
    EXECUTE format('INSERT INTO public.%1$I (%2$s) SELECT %3$s FROM jsonb_array_elements($1) e '
        'CROSS JOIN LATERAL jsonb_populate_record(NULL::public.%1$I, e || $2) r '
        'WHERE (SELECT true FROM public.%1$I o WHERE %4$s) IS NULL ON CONFLICT (%5$s) DO NOTHING', in_table, into_columns, from_columns,
        format(look_up, ''), (SELECT string_agg(format('%I', k), ', ') FROM unnest(t.key) k)) USING in_rows, fills;
    GET DIAGNOSTICS inserted = ROW_COUNT;
END $$";

/// As before, but with the places of the entries.
const RETAIN: &str = "\
CREATE OR REPLACE FUNCTION audit_retain(through bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    of_tenant uuid := nullif(current_setting('app.current_tenant', true), '')::uuid;
    oldest_kept timestamptz := now() - interval '29 days';
    places tid[];
    parts oid[];
    ids uuid[];
    deleted bigint;
BEGIN
    IF NOT EXISTS (SELECT FROM public.audit_heads h
                    WHERE h.tenant_id = of_tenant AND h.kind = 'checkpoint' AND h.sequence = through)
       OR NOT EXISTS (SELECT FROM public.audit_blocks b WHERE b.tenant_id = of_tenant AND b.last_sequence = through) THEN
        RAISE EXCEPTION 'no checkpoint at the end of a block' USING ERRCODE = '22023';
    END IF;
    IF EXISTS (SELECT FROM public.audit_blocks b
                WHERE b.tenant_id = of_tenant AND b.last_sequence <= through AND b.max_at >= oldest_kept) THEN
        RAISE EXCEPTION 'entries of the last 29 days are not deleted' USING ERRCODE = '22023';
    END IF;
    SELECT array_agg(f.place), array_agg(f.part), array_agg(f.id) INTO places, parts, ids
      FROM public.audit_blocks b CROSS JOIN LATERAL generate_series(0, octet_length(b.links) / 64 - 1) AS n
     CROSS JOIN LATERAL (SELECT encode(substr(b.links, n * 64 + 1, 16), 'hex')::uuid AS id OFFSET 0) old
     CROSS JOIN LATERAL (
           SELECT o.id, o.ctid AS place, o.tableoid AS part FROM public.audit_events o
            WHERE o.tenant_id = of_tenant AND o.id >= old.id AND o.id <= old.id ORDER BY o.id LIMIT 1) f
     WHERE b.tenant_id = of_tenant AND b.last_sequence <= through;
    DELETE FROM public.audit_events e USING public.tenant_row_places(places, parts) p
     WHERE e.tenant_id = of_tenant AND e.ctid = p.place AND e.tableoid = p.part AND e.id = ids[p.nth];
    GET DIAGNOSTICS deleted = ROW_COUNT;
    IF deleted < cardinality(ids) THEN
        RAISE EXCEPTION 'entries are changed while they are deleted' USING ERRCODE = 'serialization_failure';
    END IF;
    DELETE FROM public.audit_blocks b WHERE b.tenant_id = of_tenant AND b.last_sequence <= through;
    DELETE FROM public.audit_heads h
     WHERE h.tenant_id = of_tenant AND h.sequence < through AND h.created_at < oldest_kept;
    RETURN deleted;
END $$";

/// As before, but with the places of the entries. No other transaction moves one: erasures hold the lock of the block.
pub(crate) const AUDIT_SQL: &str = "\
CREATE OR REPLACE FUNCTION audit_erase(person uuid, block uuid, entries jsonb) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    of_tenant uuid := nullif(current_setting('app.current_tenant', true), '')::uuid;
    no_salt bytea := decode(repeat('00', 16), 'hex');
    named text[];
    chain bytea;
    one record;
    plain boolean;
    replaced bigint := 0;
BEGIN
    SELECT ARRAY(SELECT lower(a) FROM jsonb_array_elements_text(s.addresses) a) || person::text INTO named
      FROM public.erasures s WHERE s.tenant_id = of_tenant AND s.user_id = person AND s.finished_at IS NULL;
    IF named IS NULL THEN
        RAISE EXCEPTION 'no erasure of the person is under way' USING ERRCODE = '22023';
    END IF;
    SELECT b.links INTO chain FROM public.audit_blocks b WHERE b.tenant_id = of_tenant AND b.id = block FOR UPDATE;
    IF chain IS NULL THEN
        RAISE EXCEPTION 'there is no such block of the audit log' USING ERRCODE = '22023';
    END IF;
    FOR one IN
        SELECT x.id, e.place AS row_place, n.place, substr(chain, n.place * 64 + 17, 16) AS salt, x.ip, x.user_agent, x.before, x.after,
               coalesce(e.actor_id = person, false) OR coalesce(e.target_id = person, false) OR EXISTS (
                   SELECT FROM (VALUES (e.before), (e.after)) s (state)
                    CROSS JOIN LATERAL jsonb_path_query(s.state, 'strict $.** ? (@.type() == \"string\")') t (one)
                    WHERE lower(t.one #>> '{}') = ANY (named)) AS concerns
          FROM jsonb_to_recordset(entries) AS x (id uuid, ip text, user_agent text, before jsonb, after jsonb)
          JOIN generate_series(0, octet_length(chain) / 64 - 1) AS n (place)
            ON substr(chain, n.place * 64 + 1, 16) = decode(replace(x.id::text, '-', ''), 'hex')
         CROSS JOIN LATERAL (
               SELECT o.ctid AS place, o.actor_id, o.target_id, o.before, o.after FROM public.audit_events o
                WHERE o.tenant_id = of_tenant AND o.id >= x.id AND o.id <= x.id ORDER BY o.id LIMIT 1) e
         WHERE substr(chain, n.place * 64 + 17, 16) <> no_salt
    LOOP
        IF NOT one.concerns THEN
            RAISE EXCEPTION 'an entry of the audit log does not concern the person' USING ERRCODE = '22023';
        END IF;
        UPDATE public.audit_events e
           SET ip = public.audit_erased(to_jsonb(e.ip), to_jsonb(one.ip), one.salt) #>> '{}',
               user_agent = public.audit_erased(to_jsonb(e.user_agent), to_jsonb(one.user_agent), one.salt) #>> '{}',
               before = public.audit_erased(e.before, one.before, one.salt), after = public.audit_erased(e.after, one.after, one.salt)
         WHERE e.tenant_id = of_tenant AND e.ctid = one.row_place AND e.id = one.id
        RETURNING e.ip NOT LIKE 'erased:%' OR e.user_agent NOT LIKE 'erased:%' INTO plain;
        IF plain THEN
            RAISE EXCEPTION 'the erased form of an entry of the audit log is not that of the entry' USING ERRCODE = '22023';
        END IF;
        chain := overlay(chain placing no_salt from one.place * 64 + 17 for 16);
        replaced := replaced + 1;
    END LOOP;
    UPDATE public.audit_blocks b SET links = chain WHERE b.tenant_id = of_tenant AND b.id = block;
    RETURN replaced;
END $$";

/// As before, but with the places of the rows.
pub(crate) const ROWS_SQL: &str = "\
CREATE OR REPLACE FUNCTION person_rows_erase(person uuid, at_most integer) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenant uuid := nullif(current_setting('app.current_tenant', true), '')::uuid;
    one record;
    places tid[];
    parts oid[];
    gone bigint;
    done bigint := 0;
BEGIN
    FOR one IN
        WITH RECURSIVE refers AS (
            SELECT k.conrelid AS child, k.confrelid AS parent, k.confdeltype AS deletes, c.relname::text AS name,
                   (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY n.place)
                      FROM unnest(k.conkey) WITH ORDINALITY AS n (number, place)
                      JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = n.number) AS columns,
                   (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY n.place)
                      FROM unnest(k.confkey) WITH ORDINALITY AS n (number, place)
                      JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = n.number) AS keys
              FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
             WHERE k.contype = 'f' AND k.confdeltype IN ('a', 'c', 'r') AND c.relnamespace = 'public'::regnamespace
               AND NOT c.relispartition AND k.conrelid NOT IN (k.confrelid, 'public.users'::regclass)
               AND EXISTS (SELECT FROM pg_attribute a
                            WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped)
        ), paths AS (
            SELECT r.child, r.name, r.deletes, 1 AS depth, ARRAY[r.child] AS seen,
                   format('(%s) IN (SELECT %s FROM public.users WHERE tenant_id = $1 AND id = $2)', r.columns, r.keys)
                       || CASE r.name WHEN 'api_keys' THEN ' AND NOT service_account' ELSE '' END AS condition
              FROM refers r WHERE r.parent = 'public.users'::regclass AND r.deletes = 'c'
             UNION ALL
            SELECT r.child, r.name, r.deletes, p.depth + 1, p.seen || r.child,
                   format('(%s) IN (SELECT %s FROM public.%I WHERE tenant_id = $1 AND %s)', r.columns, r.keys, p.name, p.condition)
              FROM paths p JOIN refers r ON r.parent = p.child
             WHERE r.child <> ALL (p.seen) AND p.depth < 16
        )
        SELECT p.name, p.condition FROM paths p WHERE p.depth = 1 OR p.deletes <> 'c' ORDER BY p.depth DESC, p.name, p.condition
    LOOP
        EXECUTE format('SELECT array_agg(b.place), array_agg(b.part) FROM (SELECT r.ctid AS place, r.tableoid AS part FROM public.%1$I r '
            'WHERE r.tenant_id = $1 AND %2$s LIMIT $3) b', one.name, one.condition)
          INTO places, parts USING tenant, person, at_most - done;
        CONTINUE WHEN places IS NULL;
        EXECUTE format('DELETE FROM public.%1$I r USING public.tenant_row_places($3, $4) p '
            'WHERE r.tenant_id = $1 AND r.ctid = p.place AND r.tableoid = p.part AND %2$s', one.name, one.condition)
          USING tenant, person, places, parts;
        GET DIAGNOSTICS gone = ROW_COUNT;
        done := done + gone;
        EXIT WHEN done >= at_most;
    END LOOP;
    RETURN done;
END $$";
