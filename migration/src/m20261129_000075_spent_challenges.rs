use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{APP_ROLE, PLATFORM_ROLE};

/// Which challenges were answered, so that each answer is accepted once.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = [
            TABLE.to_owned(),
            "CREATE INDEX spent_challenges_expires_at_idx ON spent_challenges (expires_at)".to_owned(),
            format!("REVOKE ALL ON TABLE spent_challenges FROM PUBLIC, {APP_ROLE}, {PLATFORM_ROLE}"),
            // PostgreSQL asks for UPDATE of a column where rows are locked to be deleted.
            format!(
                "GRANT SELECT, INSERT, DELETE, UPDATE (expires_at) ON TABLE spent_challenges TO {PLATFORM_ROLE}"
            ),
        ];
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &["DROP TABLE spent_challenges".to_owned()]).await
    }
}

/// Not a [`TenantTable`](crate::TenantTable): a challenge is answered before there is a user or a tenant.
const TABLE: &str = "\
CREATE TABLE spent_challenges (
    challenge bytea NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT spent_challenges_pkey PRIMARY KEY (challenge),
    CONSTRAINT spent_challenges_challenge_check CHECK (octet_length(challenge) = 32)
)";
