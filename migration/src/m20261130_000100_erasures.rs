use sea_orm_migration::prelude::*;

use crate::m20261129_000094_tenant_archive::TABLES_SQL;
use crate::tenant_table::execute_all;
use crate::{APP_ROLE, OWNER_ROLE, OnDelete, TenantTable, policy_expression};

/// Erasure and export of one person: the state of erasures, users that stay erased, exports that are of one person, and the functions
/// that find and erase what the tables have of a person.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        erasures().create(manager).await?;
        let mut sql = vec![ERASED_AT.to_owned(), STAY_ERASED.to_owned()];
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
/// `digests` are keyed and stay.
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

const FUNCTIONS: [(&str, &str); 3] = [
    (
        "person_archive_open(text, text[], uuid, text[], text[], text[], text[])",
        OPEN_SQL,
    ),
    ("person_rows_erase(uuid, integer)", ROWS_SQL),
    ("audit_erase(uuid, bytea, jsonb)", AUDIT_SQL),
];

/// Opens the cursor `tenant_archive` over the rows of one table, of the tenant that is set, that are about a person: in one of `ids` is the
/// id of the person, in one of `mails`, which are text, an address of `addresses` or the id, or in one of `states`, which are JSON, is either.
const OPEN_SQL: &str = "\
CREATE OR REPLACE FUNCTION person_archive_open(
    in_table text, left_out text[], person uuid, addresses text[], ids text[], mails text[], states text[]
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
        UNION ALL SELECT format('EXISTS (SELECT FROM unnest($4 || $3::text) a WHERE position(to_jsonb(a)::text IN r.%I::text) > 0)', s)
          FROM unnest(states) s) c;
    OPEN opened NO SCROLL FOR EXECUTE format('SELECT (to_jsonb(r) - $1)::text AS line FROM public.%I r WHERE r.tenant_id = $2 AND (%s) ORDER BY %s',
        in_table, coalesce(about, 'false'), sorted) USING left_out, tenant, person, addresses;
END $$";

/// Deletes rows of the tenant that is set which go with a person: those whose reference to the user is ON DELETE CASCADE, so that the
/// decision is made where a table is created. Keys of service accounts stay, which belong to the tenant. Returns how many were deleted;
/// none when there are no more.
const ROWS_SQL: &str = "\
CREATE OR REPLACE FUNCTION person_rows_erase(person uuid, at_most integer) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    tenant uuid := nullif(current_setting('app.current_tenant', true), '')::uuid;
    one record;
    gone bigint;
    done bigint := 0;
BEGIN
    FOR one IN SELECT c.relname AS name, a.attname AS reference FROM pg_constraint k
                 JOIN pg_class c ON c.oid = k.conrelid
                 JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey) AND a.attname <> 'tenant_id'
                WHERE k.contype = 'f' AND k.confdeltype = 'c' AND k.confrelid = 'public.users'::regclass
                  AND c.relnamespace = 'public'::regnamespace AND NOT c.relispartition
                ORDER BY c.relname, a.attname LOOP
        EXECUTE format('DELETE FROM public.%1$I r USING (SELECT b.ctid AS place, b.tableoid AS part FROM public.%1$I b '
            'WHERE b.tenant_id = $1 AND b.%2$I = $2 %3$s LIMIT $3) AS batch '
            'WHERE r.tenant_id = $1 AND r.ctid = batch.place AND r.tableoid = batch.part', one.name, one.reference,
            CASE one.name WHEN 'api_keys' THEN 'AND NOT b.service_account' ELSE '' END) USING tenant, person, at_most - done;
        GET DIAGNOSTICS gone = ROW_COUNT;
        done := done + gone;
        EXIT WHEN done >= at_most;
    END LOOP;
    RETURN done;
END $$";

/// Replaces entries of a block of the audit log by their erased form, and salts of the block by zeros. It runs as the owner, whose policies
/// show it rows of the tenant that is set. It can do nothing else: ids and hashes of the block stay, and so do all columns
/// of an entry that tell of nobody. An entry that is replaced by anything but its erased form no longer fits its hash, which
/// verification finds. Returns how many entries were replaced.
const AUDIT_SQL: &str = "\
CREATE OR REPLACE FUNCTION audit_erase(block uuid, new_links bytea, entries jsonb) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    of_tenant uuid := nullif(current_setting('app.current_tenant', true), '')::uuid;
    old_links bytea;
    replaced bigint;
BEGIN
    SELECT b.links INTO old_links FROM public.audit_blocks b WHERE b.tenant_id = of_tenant AND b.id = block;
    IF old_links IS NULL OR octet_length(old_links) <> octet_length(new_links) OR EXISTS (
        SELECT FROM generate_series(0, octet_length(old_links) / 64 - 1) AS n
         WHERE substr(old_links, n * 64 + 1, 16) <> substr(new_links, n * 64 + 1, 16)
            OR substr(old_links, n * 64 + 33, 32) <> substr(new_links, n * 64 + 33, 32)
            OR substr(new_links, n * 64 + 17, 16) NOT IN (substr(old_links, n * 64 + 17, 16), decode(repeat('00', 16), 'hex'))) THEN
        RAISE EXCEPTION 'a block of the audit log changes in nothing but its salts' USING ERRCODE = '22023';
    END IF;
    UPDATE public.audit_events e SET ip = x.ip, user_agent = x.user_agent, before = x.before, after = x.after
      FROM jsonb_to_recordset(entries) AS x (id uuid, ip text, user_agent text, before jsonb, after jsonb)
     WHERE e.tenant_id = of_tenant AND e.id = x.id AND x.id IN (
        SELECT encode(substr(old_links, n * 64 + 1, 16), 'hex')::uuid FROM generate_series(0, octet_length(old_links) / 64 - 1) AS n)
       AND coalesce(x.ip, 'erased:') LIKE 'erased:%' AND coalesce(x.user_agent, 'erased:') LIKE 'erased:%';
    GET DIAGNOSTICS replaced = ROW_COUNT;
    UPDATE public.audit_blocks b SET links = new_links WHERE b.tenant_id = of_tenant AND b.id = block;
    RETURN replaced;
END $$";
