use sea_orm_migration::prelude::*;

use crate::m20261129_000094_tenant_archive::TABLES_SQL;
use crate::tenant_table::{execute_all, purge_policies};
use crate::{APP_ROLE, OWNER_ROLE, OnDelete, TenantTable, policy_expression};

/// Erasure and export of one person: the state of erasures, users that stay erased, exports that are of one person, and the functions
/// that find and erase what the tables have of a person.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        erasures().create(manager).await?;
        let mut sql = vec![format!("REVOKE DELETE ON TABLE erasures FROM {APP_ROLE}")];
        sql.extend(purge_policies("erasures", "erasures"));
        sql.extend([ERASED_AT.to_owned(), STAY_ERASED.to_owned()]);
        sql.extend(OF_PERSONS.map(str::to_owned));
        sql.push(with_cascades());
        sql.extend(FUNCTIONS.map(|(_, body)| body.to_owned()));
        sql.extend(FUNCTIONS.map(|(name, _)| format!("REVOKE ALL ON FUNCTION {name} FROM PUBLIC")));
        sql.extend(FUNCTIONS.map(|(name, _)| format!("GRANT EXECUTE ON FUNCTION {name} TO {APP_ROLE}")));
        let rule = policy_expression("tenant_id");
        sql.extend(REWRITTEN.map(|table| {
            format!("CREATE POLICY {table}_erase ON {table} FOR UPDATE TO {OWNER_ROLE} USING ({rule}) WITH CHECK ({rule})")
        }));
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut sql: Vec<String> = REWRITTEN
            .map(|table| format!("DROP POLICY {table}_erase ON {table}"))
            .to_vec();
        sql.extend(FUNCTIONS.map(|(name, _)| format!("DROP FUNCTION {name}")));
        sql.push(TABLES_SQL.to_owned());
        sql.push("ALTER TABLE tenant_exports DROP COLUMN person_id".to_owned());
        sql.push("ALTER TABLE users DROP COLUMN erased_at".to_owned());
        execute_all(manager, &sql).await?;
        erasures().drop(manager).await
    }
}

/// An erasure is a tombstone as well: an import does not bring the person back. `addresses` are those of the person until it is finished,
/// `digests` are keyed and stay. The runtime role cannot delete one, so that no entry of the audit log is erased without a trace.
fn erasures() -> TenantTable {
    TenantTable::new("erasures")
        .belongs_to("user_id", "users", OnDelete::Restrict)
        .column("addresses", "jsonb NOT NULL")
        .column("digests", "jsonb NOT NULL")
        .column("sequence", "bigint NOT NULL")
        .column("entries", "bigint NOT NULL")
        .column("finished_at", "timestamptz")
        .check("erasures_entries_check", "sequence >= 0 AND entries >= 0")
        .check(
            "erasures_finished_check",
            "finished_at IS NULL OR addresses = '[]'::jsonb",
        )
        .unique("erasures_user_id_key", &["user_id"])
}

const ERASED_AT: &str = "ALTER TABLE users ADD COLUMN erased_at timestamptz";

/// Whatever writes the row of an erased person, such as the restoration of an older archive, fails unless the row stays anonymous.
const STAY_ERASED: &str = "\
ALTER TABLE users ADD CONSTRAINT users_erased_check CHECK (erased_at IS NULL OR (email = 'erased-' || id || '@erased.invalid'
    AND full_name = 'Erased user' AND NOT is_active AND deleted_at IS NOT NULL))";

/// The person that an export is of; null for one of the whole tenant.
const OF_PERSONS: [&str; 3] = [
    "ALTER TABLE tenant_exports ADD COLUMN person_id uuid",
    "ALTER TABLE tenant_exports ADD CONSTRAINT tenant_exports_person_id_fkey FOREIGN KEY (tenant_id, person_id) \
     REFERENCES users (tenant_id, id) ON DELETE RESTRICT",
    "CREATE INDEX tenant_exports_person_id_idx ON tenant_exports (tenant_id, person_id)",
];

/// The list of tables also says which references delete their row with the one that it refers to.
fn with_cascades() -> String {
    TABLES_SQL.replacen(
        "jsonb_build_object('table', p.name, ",
        "jsonb_build_object('table', p.name, 'cascades', f.confdeltype = 'c', ",
        1,
    )
}

/// The append-only tables that an erasure changes.
const REWRITTEN: [&str; 2] = ["audit_events", "audit_blocks"];

const FUNCTIONS: [(&str, &str); 4] = [
    (
        "person_archive_open(text, text[], uuid, text[], text[], text[], text[], text)",
        OPEN_SQL,
    ),
    ("person_rows_erase(uuid, integer)", ROWS_SQL),
    ("audit_erased(jsonb, jsonb, bytea)", ERASED_SQL),
    ("audit_erase(uuid, uuid, jsonb)", AUDIT_SQL),
];

/// Opens the cursor `tenant_archive` over the rows of one table, of the tenant that is set, that are about a person: in one of `ids` is the
/// id of the person, in one of `mails`, which are text, an address of `addresses` or the id, or in one of `states`, which are JSON, is either.
/// Where the column `chosen_by` is null an address in a state was chosen by anybody, and does not count.
const OPEN_SQL: &str = "\
CREATE OR REPLACE FUNCTION person_archive_open(
    in_table text, left_out text[], person uuid, addresses text[], ids text[], mails text[], states text[], chosen_by text
) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenant uuid := nullif(current_setting('app.current_tenant', true), '')::uuid;
    opened refcursor := 'tenant_archive';
    sorted text;
    about text;
BEGIN
    SELECT string_agg(format('r.%I', k.name), ', ' ORDER BY k.place) INTO sorted
      FROM public.tenant_archive_tables() t CROSS JOIN LATERAL unnest(t.key) WITH ORDINALITY AS k (name, place)
     WHERE t.name = in_table;
    IF sorted IS NULL THEN
        RAISE EXCEPTION 'there is no table % of tenants with a primary key', in_table;
    END IF;
    SELECT string_agg(c.one, ' OR ') INTO about FROM (
        SELECT format('r.%I = $3', i) AS one FROM unnest(ids) i
        UNION ALL SELECT format('r.%I = ANY ($4 || $3::text)', m) FROM unnest(mails) m
        UNION ALL SELECT format('EXISTS (SELECT FROM unnest(%s $3::text) a WHERE position(to_jsonb(a)::text IN r.%I::text) > 0)',
            CASE WHEN chosen_by IS NULL THEN '$4 ||' ELSE format('CASE WHEN r.%I IS NULL THEN ''{}'' ELSE $4 END ||', chosen_by) END, s)
          FROM unnest(states) s) c;
    OPEN opened NO SCROLL FOR EXECUTE format('SELECT (to_jsonb(r) - $1)::text AS line FROM public.%I r WHERE r.tenant_id = $2 AND (%s) ORDER BY %s',
        in_table, coalesce(about, 'false'), sorted) USING left_out, tenant, person, addresses;
END $$";

/// Deletes rows of the tenant that is set which go with a person: those whose reference to the user is ON DELETE CASCADE, so that the
/// decision is made where a table is created. Rows that refer to these go before them, through any number of tables, since they could not
/// stay: a reference that is ON DELETE RESTRICT says in which order rows are deleted, and not that a person cannot be erased. Keys of
/// service accounts stay, which belong to the tenant. Returns how many were deleted; none when there are no more.
pub(crate) const ROWS_SQL: &str = "\
CREATE OR REPLACE FUNCTION person_rows_erase(person uuid, at_most integer) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenant uuid := nullif(current_setting('app.current_tenant', true), '')::uuid;
    one record;
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
        EXECUTE format('DELETE FROM public.%1$I r USING (SELECT b.ctid AS place, b.tableoid AS part FROM public.%1$I b '
            'WHERE b.tenant_id = $1 AND %2$s LIMIT $3) AS batch '
            'WHERE r.tenant_id = $1 AND r.ctid = batch.place AND r.tableoid = batch.part', one.name, one.condition)
          USING tenant, person, at_most - done;
        GET DIAGNOSTICS gone = ROW_COUNT;
        done := done + gone;
        EXIT WHEN done >= at_most;
    END LOOP;
    RETURN done;
END $$";

/// A stored value of an entry in which texts are replaced by those of an erased form, wherever that has the hash of the salt and the text.
/// Numbers and lists are hashed in a canonical form that is not made here, so that any hash is taken for theirs: verification finds a
/// wrong one. Nothing else is taken from the erased form.
const ERASED_SQL: &str = "\
CREATE OR REPLACE FUNCTION audit_erased(plain jsonb, given jsonb, salt bytea) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    plain_is text := jsonb_typeof(plain);
    given_is text := jsonb_typeof(given);
    hash text := given #>> '{}';
BEGIN
    IF given_is = 'string' AND (plain_is IN ('number', 'array') AND hash ~ '^erased:[0-9a-f]{64}$'
        OR plain_is = 'string' AND hash = 'erased:' || encode(sha256(salt || convert_to(plain #>> '{}', 'UTF8')), 'hex')) THEN
        RETURN given;
    ELSIF plain_is = 'object' AND given_is = 'object' THEN
        RETURN (SELECT coalesce(jsonb_object_agg(p.key, public.audit_erased(p.value, given -> p.key, salt)), '{}')
                  FROM jsonb_each(plain) p);
    ELSIF plain_is = 'array' AND given_is = 'array' THEN
        RETURN (SELECT coalesce(jsonb_agg(public.audit_erased(p.value, given -> (p.place - 1)::integer, salt) ORDER BY p.place), '[]')
                  FROM jsonb_array_elements(plain) WITH ORDINALITY AS p (value, place));
    END IF;
    RETURN plain;
END $$";

/// Replaces entries of a block of the audit log by their erased form, and their salts by zeros. It runs as the owner, whose policies
/// show it rows of the tenant that is set. It does so for a person whose erasure has begun and is not finished, and with entries that
/// concern this person: by the actor, by the target, or by the id or an address of the erasure in a state. Texts are taken from `entries`
/// where [`ERASED_SQL`] finds them right; ids, hashes and all else stay. The block is locked before it is read, so that of two erasures
/// at once neither brings a salt back. Returns how many entries were replaced, without those that were before.
pub(crate) const AUDIT_SQL: &str = "\
CREATE OR REPLACE FUNCTION audit_erase(person uuid, block uuid, entries jsonb) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    of_tenant uuid := nullif(current_setting('app.current_tenant', true), '')::uuid;
    no_salt bytea := decode(repeat('00', 16), 'hex');
    named text[];
    chain bytea;
    one record;
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
        SELECT x.id, n.place, substr(chain, n.place * 64 + 17, 16) AS salt, x.ip, x.user_agent, x.before, x.after,
               coalesce(e.actor_id = person, false) OR coalesce(e.target_id = person, false) OR EXISTS (
                   SELECT FROM (VALUES (e.before), (e.after)) s (state)
                    CROSS JOIN LATERAL jsonb_path_query(s.state, 'strict $.** ? (@.type() == \"string\")') t (one)
                    WHERE lower(t.one #>> '{}') = ANY (named)) AS concerns
          FROM jsonb_to_recordset(entries) AS x (id uuid, ip text, user_agent text, before jsonb, after jsonb)
          JOIN generate_series(0, octet_length(chain) / 64 - 1) AS n (place)
            ON substr(chain, n.place * 64 + 1, 16) = decode(replace(x.id::text, '-', ''), 'hex')
          JOIN public.audit_events e ON e.tenant_id = of_tenant AND e.id = x.id
         WHERE substr(chain, n.place * 64 + 17, 16) <> no_salt
    LOOP
        IF NOT one.concerns THEN
            RAISE EXCEPTION 'an entry of the audit log does not concern the person' USING ERRCODE = '22023';
        END IF;
        UPDATE public.audit_events e
           SET ip = public.audit_erased(to_jsonb(e.ip), to_jsonb(one.ip), one.salt) #>> '{}',
               user_agent = public.audit_erased(to_jsonb(e.user_agent), to_jsonb(one.user_agent), one.salt) #>> '{}',
               before = public.audit_erased(e.before, one.before, one.salt), after = public.audit_erased(e.after, one.after, one.salt)
         WHERE e.tenant_id = of_tenant AND e.id = one.id;
        IF EXISTS (SELECT FROM public.audit_events e WHERE e.tenant_id = of_tenant AND e.id = one.id
                      AND (e.ip NOT LIKE 'erased:%' OR e.user_agent NOT LIKE 'erased:%')) THEN
            RAISE EXCEPTION 'the erased form of an entry of the audit log is not that of the entry' USING ERRCODE = '22023';
        END IF;
        chain := overlay(chain placing no_salt from one.place * 64 + 17 for 16);
        replaced := replaced + 1;
    END LOOP;
    UPDATE public.audit_blocks b SET links = chain WHERE b.tenant_id = of_tenant AND b.id = block;
    RETURN replaced;
END $$";
