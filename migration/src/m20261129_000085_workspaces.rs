use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{APP_ROLE, DataMigration, PLATFORM_ROLE};

/// Which accounts of all tenants an address has, requests for that list, and who has proven to read the mailbox of an account.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &COLUMNS.map(str::to_owned)).await?;
        let tables = [ADDRESSES, OF_ADDRESS, REQUESTS, DUE].map(str::to_owned);
        execute_all(manager, &tables).await?;
        execute_all(manager, &grants()).await?;
        execute_all(manager, &functions()).await?;
        let triggers = TRIGGERS.map(|(name, _, rest)| format!("CREATE TRIGGER {name} {rest}"));
        execute_all(manager, &triggers).await?;
        // Nothing is known of how long an account has had its address. The triggers fill the index meanwhile.
        DataMigration::on("users")
            .expect("SELECT count(*) FROM users WHERE email_since IS NULL")
            .run("UPDATE users SET email_since = now() WHERE email_since IS NULL")
            .apply(manager)
            .await?;
        let rest = [
            format!("SET LOCAL ROLE {PLATFORM_ROLE}"),
            OF_DELETED.to_owned(),
            "RESET ROLE".to_owned(),
            format!("REVOKE DELETE ON TABLE user_addresses FROM {PLATFORM_ROLE}"),
            // Servers of an earlier release add users without it.
            "ALTER TABLE users ALTER COLUMN email_since SET DEFAULT now(), ALTER COLUMN email_since SET NOT NULL".to_owned(),
        ];
        execute_all(manager, &rest).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let triggers = TRIGGERS.map(|(name, table, _)| format!("DROP TRIGGER {name} ON {table}"));
        execute_all(manager, &triggers).await?;
        // Sessions that began by a switch are unknown to an earlier release: their users log in again.
        DataMigration::on("refresh_sessions")
            .expect("SELECT count(*) FROM refresh_sessions WHERE methods > 15")
            .run("DELETE FROM refresh_sessions WHERE methods > 15")
            .apply(manager)
            .await?;
        execute_all(manager, &DOWN.map(str::to_owned)).await
    }
}

const COLUMNS: [&str; 9] = [
    "ALTER TABLE users ADD COLUMN email_since timestamptz",
    "ALTER TABLE users ADD COLUMN mailbox_proven_at timestamptz",
    "ALTER TABLE refresh_sessions ADD COLUMN mailbox text",
    "ALTER TABLE refresh_sessions ADD COLUMN mailbox_proven_at timestamptz",
    "ALTER TABLE refresh_sessions ADD CONSTRAINT refresh_sessions_mailbox_check \
     CHECK ((mailbox IS NULL) = (mailbox_proven_at IS NULL))",
    "ALTER TABLE refresh_sessions DROP CONSTRAINT refresh_sessions_methods_check, \
     ADD CONSTRAINT refresh_sessions_methods_check CHECK (methods BETWEEN 1 AND 31)",
    "ALTER TABLE passkeys ADD COLUMN mailbox text",
    "ALTER TABLE passkeys ADD COLUMN mailbox_proven_at timestamptz",
    "ALTER TABLE passkeys ADD CONSTRAINT passkeys_mailbox_check \
     CHECK ((mailbox IS NULL) = (mailbox_proven_at IS NULL))",
];

const DOWN: [&str; 8] = [
    "DROP FUNCTION user_addresses_drop()",
    "DROP FUNCTION user_addresses_keep()",
    "DROP TABLE workspace_requests",
    "DROP TABLE user_addresses",
    "ALTER TABLE passkeys DROP COLUMN mailbox, DROP COLUMN mailbox_proven_at",
    "ALTER TABLE refresh_sessions DROP COLUMN mailbox, DROP COLUMN mailbox_proven_at",
    "ALTER TABLE refresh_sessions DROP CONSTRAINT refresh_sessions_methods_check, \
     ADD CONSTRAINT refresh_sessions_methods_check CHECK (methods BETWEEN 1 AND 15)",
    "ALTER TABLE users DROP COLUMN email_since, DROP COLUMN mailbox_proven_at",
];

/// Not a [`TenantTable`](crate::TenantTable): it is read by address, for all tenants. No key of it is of an address alone, so a
/// tenant that adds a user learns nothing of other tenants. The tenant is no foreign key: triggers delete the rows.
const ADDRESSES: &str = "\
CREATE TABLE user_addresses (
    of_tenant uuid NOT NULL,
    of_user uuid NOT NULL,
    address_digest bytea NOT NULL,
    CONSTRAINT user_addresses_pkey PRIMARY KEY (of_tenant, of_user),
    CONSTRAINT user_addresses_address_digest_check CHECK (octet_length(address_digest) = 32)
)";

const OF_ADDRESS: &str =
    "CREATE INDEX user_addresses_address_digest_idx ON user_addresses (address_digest, of_tenant)";

/// Not a [`TenantTable`](crate::TenantTable): a request names no tenant. An address has one row at most.
const REQUESTS: &str = "\
CREATE TABLE workspace_requests (
    id uuid NOT NULL,
    email text NOT NULL,
    requested_at timestamptz NOT NULL,
    attempts integer NOT NULL,
    due_at timestamptz NOT NULL,
    CONSTRAINT workspace_requests_pkey PRIMARY KEY (id),
    CONSTRAINT workspace_requests_email_key UNIQUE (email),
    CONSTRAINT workspace_requests_email_check CHECK (char_length(email) <= 254),
    CONSTRAINT workspace_requests_attempts_check CHECK (attempts >= 0)
)";

/// What servers look through.
const DUE: &str = "CREATE INDEX workspace_requests_due_at_idx ON workspace_requests (due_at)";

/// The triggers: name, table, and when each fires and what it runs.
const TRIGGERS: [(&str, &str, &str); 5] = [
    (
        "users_addresses_insert",
        "users",
        "AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION user_addresses_keep()",
    ),
    (
        "users_addresses_update",
        "users",
        "AFTER UPDATE OF email, email_since, email_verified, is_active, deleted_at ON users FOR EACH ROW \
         WHEN ((OLD.email, OLD.email_since, OLD.email_verified, OLD.is_active, OLD.deleted_at) \
         IS DISTINCT FROM (NEW.email, NEW.email_since, NEW.email_verified, NEW.is_active, NEW.deleted_at)) \
         EXECUTE FUNCTION user_addresses_keep()",
    ),
    (
        "users_addresses_delete",
        "users",
        "AFTER DELETE ON users FOR EACH ROW EXECUTE FUNCTION user_addresses_keep()",
    ),
    (
        "tenants_addresses_update",
        "tenants",
        "AFTER UPDATE OF status ON tenants FOR EACH ROW WHEN (NEW.status = 'deleted') \
         EXECUTE FUNCTION user_addresses_drop()",
    ),
    (
        "tenants_addresses_delete",
        "tenants",
        "AFTER DELETE ON tenants FOR EACH ROW EXECUTE FUNCTION user_addresses_drop()",
    ),
];

fn grants() -> [String; 4] {
    [
        format!("REVOKE ALL ON TABLE user_addresses FROM PUBLIC, {APP_ROLE}, {PLATFORM_ROLE}"),
        // Deletion is for this migration only; later the triggers delete.
        format!("GRANT SELECT, DELETE ON TABLE user_addresses TO {PLATFORM_ROLE}"),
        format!("REVOKE ALL ON TABLE workspace_requests FROM PUBLIC, {APP_ROLE}, {PLATFORM_ROLE}"),
        format!("GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE workspace_requests TO {PLATFORM_ROLE}"),
    ]
}

fn functions() -> [String; 3] {
    [
        KEEP.to_owned(),
        DROP.to_owned(),
        "REVOKE ALL ON FUNCTION user_addresses_keep(), user_addresses_drop() FROM PUBLIC".to_owned(),
    ]
}

/// Keeps the row of an account that can be listed: one that is active and whose address is verified. It runs as the owner of the
/// tables, since the runtime role has no grant on the index. It touches rows of this account alone, and none of its keys is shared
/// between tenants, so neither its result nor an error depends on another tenant.
const KEEP: &str = "\
CREATE OR REPLACE FUNCTION user_addresses_keep() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        DELETE FROM public.user_addresses WHERE of_tenant = OLD.tenant_id AND of_user = OLD.id;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        IF NEW.is_active AND NEW.email_verified AND NEW.deleted_at IS NULL THEN
            INSERT INTO public.user_addresses (of_tenant, of_user, address_digest)
                VALUES (NEW.tenant_id, NEW.id, sha256(convert_to(NEW.email, 'UTF8')));
        END IF;
    END IF;
    RETURN NULL;
END $$";

/// Deletes the rows of a tenant that is deleted. Where such a tenant is restored by hand, each account is listed again after
/// its next change.
const DROP: &str = "\
CREATE OR REPLACE FUNCTION user_addresses_drop() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM public.user_addresses WHERE of_tenant = OLD.id;
    RETURN NULL;
END $$";

/// Accounts of tenants that are deleted already.
const OF_DELETED: &str = "\
DELETE FROM user_addresses a USING tenants t WHERE t.id = a.of_tenant AND t.status = 'deleted'";
