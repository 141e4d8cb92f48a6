use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{APP_ROLE, PLATFORM_ROLE};

/// The definitions of feature flags, which operators write for everybody, and every version of each.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut sql = [FLAGS, VERSIONS, SEGMENTS].map(str::to_owned).to_vec();
        // Definitions name tenants, so that the runtime role, which works for one, has no business reading them: the
        // server reads them as the platform role and remembers them for everybody.
        for (table, grants) in [
            (
                "flags",
                "SELECT, INSERT, UPDATE (definition, version, updated_at)",
            ),
            // Append-only: a version that was once in force stays on record.
            ("flag_versions", "SELECT, INSERT"),
            (
                "segments",
                "SELECT, INSERT, UPDATE (definition, version, updated_at), DELETE",
            ),
        ] {
            sql.push(format!(
                "REVOKE ALL ON TABLE {table} FROM PUBLIC, {APP_ROLE}, {PLATFORM_ROLE}"
            ));
            sql.push(format!("GRANT {grants} ON TABLE {table} TO {PLATFORM_ROLE}"));
        }
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = [
            "DROP TABLE segments",
            "DROP TABLE flag_versions",
            "DROP TABLE flags",
        ]
        .map(str::to_owned);
        execute_all(manager, &sql).await
    }
}

/// Not a [`TenantTable`](crate::TenantTable): a flag is everybody's.
const FLAGS: &str = "\
CREATE TABLE flags (
    key text NOT NULL,
    definition jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version bigint NOT NULL,
    CONSTRAINT flags_pkey PRIMARY KEY (key),
    CONSTRAINT flags_definition_check CHECK (jsonb_typeof(definition) = 'object'),
    CONSTRAINT flags_version_check CHECK (version > 0)
)";

/// By whom is null where nobody was logged in, as with a command on the server.
const VERSIONS: &str = "\
CREATE TABLE flag_versions (
    key text NOT NULL,
    version bigint NOT NULL,
    definition jsonb NOT NULL,
    operator_id uuid,
    created_at timestamptz NOT NULL,
    CONSTRAINT flag_versions_pkey PRIMARY KEY (key, version),
    CONSTRAINT flag_versions_key_fkey FOREIGN KEY (key) REFERENCES flags (key) ON DELETE RESTRICT,
    CONSTRAINT flag_versions_definition_check CHECK (jsonb_typeof(definition) = 'object')
)";

const SEGMENTS: &str = "\
CREATE TABLE segments (
    key text NOT NULL,
    definition jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    version bigint NOT NULL,
    CONSTRAINT segments_pkey PRIMARY KEY (key),
    CONSTRAINT segments_definition_check CHECK (jsonb_typeof(definition) = 'object'),
    CONSTRAINT segments_version_check CHECK (version > 0)
)";
