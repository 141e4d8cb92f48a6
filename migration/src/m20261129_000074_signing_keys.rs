use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{APP_ROLE, PLATFORM_ROLE};

/// The keys that sign access tokens, which all servers share.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = [
            TABLE.to_owned(),
            format!("REVOKE ALL ON TABLE signing_keys FROM PUBLIC, {APP_ROLE}, {PLATFORM_ROLE}"),
            format!("GRANT SELECT, INSERT, UPDATE (sealed), DELETE ON TABLE signing_keys TO {PLATFORM_ROLE}"),
        ];
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &["DROP TABLE signing_keys".to_owned()]).await
    }
}

/// Not a [`TenantTable`](crate::TenantTable): one key signs the tokens of all tenants. `sealed` opens with the signing key of
/// the configuration only, so that neither the database nor a backup of it can sign.
const TABLE: &str = "\
CREATE TABLE signing_keys (
    kid text NOT NULL,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL,
    signs_from timestamptz NOT NULL,
    CONSTRAINT signing_keys_pkey PRIMARY KEY (kid),
    CONSTRAINT signing_keys_kid_check CHECK (char_length(kid) BETWEEN 1 AND 64),
    CONSTRAINT signing_keys_sealed_check CHECK (octet_length(sealed) BETWEEN 1 AND 1024),
    CONSTRAINT signing_keys_signs_from_check CHECK (signs_from >= created_at)
)";
