use sea_orm_migration::prelude::*;

use crate::m20261130_000111_row_places::{AUDIT_SQL as FORMER_AUDIT, ROWS_SQL as FORMER_ROWS};
use crate::tenant_table::execute_all;

/// Erasures find rows that other transactions change meanwhile, and the hash of a first password is kept when its user has chosen another one.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(
            manager,
            &[ROWS_SQL, AUDIT_SQL, FIRST_PASSWORDS].map(str::to_owned),
        )
        .await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let former = [DROP_FIRST_PASSWORDS, FORMER_AUDIT, FORMER_ROWS];
        execute_all(manager, &former.map(str::to_owned)).await
    }
}

/// A first password must not become that of the account later either. Of those that were replaced before nobody knows the hash.
const FIRST_PASSWORDS: &str = "ALTER TABLE users ADD COLUMN first_password_hash text";
const DROP_FIRST_PASSWORDS: &str = "ALTER TABLE users DROP COLUMN first_password_hash";

/// As before, but a row that another transaction changes between the choice of the batch and its deletion is waited for and found by
/// another pass. It was left in place, and a batch that chose no other row said that nothing was left.
const ROWS_SQL: &str = "\
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
        FOR pass IN 1..8 LOOP
            EXECUTE format('SELECT array_agg(b.place), array_agg(b.part) FROM (SELECT r.ctid AS place, r.tableoid AS part FROM public.%1$I r '
                'WHERE r.tenant_id = $1 AND %2$s LIMIT $3) b', one.name, one.condition)
              INTO places, parts USING tenant, person, at_most - done;
            EXIT WHEN places IS NULL;
            EXECUTE format('DELETE FROM public.%1$I r USING public.tenant_row_places($3, $4) p '
                'WHERE r.tenant_id = $1 AND r.ctid = p.place AND r.tableoid = p.part AND %2$s', one.name, one.condition)
              USING tenant, person, places, parts;
            GET DIAGNOSTICS gone = ROW_COUNT;
            done := done + gone;
            EXIT WHEN gone = cardinality(places);
            IF pass = 8 THEN
                RAISE EXCEPTION 'rows of the table % are changed while they are erased', one.name
                    USING ERRCODE = 'serialization_failure';
            END IF;
        END LOOP;
        EXIT WHEN done >= at_most;
    END LOOP;
    RETURN done;
END $$";

/// As before, but an entry that another transaction has changed meanwhile fails the erasure, which is repeated. Its salt was destroyed
/// while its text stayed.
const AUDIT_SQL: &str = "\
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
        IF NOT FOUND THEN
            RAISE EXCEPTION 'an entry of the audit log is changed while it is erased' USING ERRCODE = 'serialization_failure';
        END IF;
        IF plain THEN
            RAISE EXCEPTION 'the erased form of an entry of the audit log is not that of the entry' USING ERRCODE = '22023';
        END IF;
        chain := overlay(chain placing no_salt from one.place * 64 + 17 for 16);
        replaced := replaced + 1;
    END LOOP;
    UPDATE public.audit_blocks b SET links = chain WHERE b.tenant_id = of_tenant AND b.id = block;
    RETURN replaced;
END $$";
