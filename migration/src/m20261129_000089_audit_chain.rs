use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{APP_ROLE, TenantTable};

/// The hash chain of the audit log, its signed heads, and the one way to delete old entries.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        blocks().create(manager).await?;
        heads().create(manager).await?;
        let functions = [
            RETAIN.to_owned(),
            format!("REVOKE ALL ON FUNCTION {SIGNATURE} FROM PUBLIC"),
            format!("GRANT EXECUTE ON FUNCTION {SIGNATURE} TO {APP_ROLE}"),
        ];
        execute_all(manager, &functions).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &[format!("DROP FUNCTION {SIGNATURE}")]).await?;
        heads().drop(manager).await?;
        blocks().drop(manager).await
    }
}

/// The chain. A block holds the entries that were chained together: `links` has 64 bytes for each, its id, the salt of its
/// personal data and its hash. A row for each entry would cost a write more than all else of the log. The unique key keeps two
/// servers from chaining at once.
fn blocks() -> TenantTable {
    TenantTable::new("audit_blocks")
        .column("first_sequence", "bigint NOT NULL")
        .column("last_sequence", "bigint NOT NULL")
        .column("links", "bytea NOT NULL")
        .column("min_at", "timestamptz NOT NULL")
        .column("max_at", "timestamptz NOT NULL")
        .column("cursor_xact", "bigint NOT NULL")
        .column("cursor_id", "uuid NOT NULL")
        .check("audit_blocks_first_sequence_check", "first_sequence > 0")
        .check(
            "audit_blocks_links_check",
            "octet_length(links) = 64 * (last_sequence - first_sequence + 1)",
        )
        .unique("audit_blocks_first_sequence_key", &["first_sequence"])
        .index("audit_blocks_max_at_idx", &["max_at"])
        .append_only()
}

/// Signed states of the chain: daily heads, and the checkpoints up to which old entries were deleted. `public_key` is the key that
/// verifies the signature, sealed by the server, since the signing keys rotate.
fn heads() -> TenantTable {
    TenantTable::new("audit_heads")
        .column("kind", "text NOT NULL")
        .column("sequence", "bigint NOT NULL")
        .column("hash", "bytea NOT NULL")
        .column("kid", "text NOT NULL")
        .column("public_key", "bytea NOT NULL")
        .column("signature", "bytea NOT NULL")
        .check("audit_heads_kind_check", "kind IN ('head', 'checkpoint')")
        .check("audit_heads_sequence_check", "sequence > 0")
        .check("audit_heads_hash_check", "octet_length(hash) = 32")
        .index("audit_heads_sequence_idx", &["sequence", "kind"])
        .append_only()
}

const SIGNATURE: &str = "audit_retain(bigint)";

/// Deletes the entries of the transaction's tenant up to a sequence number, with their blocks. There must be a checkpoint of that
/// number, and a block must end with it, so that the rest of the chain can be verified. Entries younger than 29 days are out of
/// reach; the setting's minimum is 30 days, and clocks differ. It runs as the owner, whose policies on append-only tables show it
/// rows of that tenant alone. Returns how many entries were deleted.
pub(crate) const RETAIN: &str = "\
CREATE OR REPLACE FUNCTION audit_retain(through bigint) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    of_tenant uuid := nullif(current_setting('app.current_tenant', true), '')::uuid;
    oldest_kept timestamptz := now() - interval '29 days';
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
    DELETE FROM public.audit_events e USING (
        SELECT encode(substr(b.links, n * 64 + 1, 16), 'hex')::uuid AS id
          FROM public.audit_blocks b, generate_series(0, octet_length(b.links) / 64 - 1) AS n
         WHERE b.tenant_id = of_tenant AND b.last_sequence <= through) AS old
     WHERE e.tenant_id = of_tenant AND e.id = old.id;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    DELETE FROM public.audit_blocks b WHERE b.tenant_id = of_tenant AND b.last_sequence <= through;
    DELETE FROM public.audit_heads h
     WHERE h.tenant_id = of_tenant AND h.sequence < through AND h.created_at < oldest_kept;
    RETURN deleted;
END $$";
