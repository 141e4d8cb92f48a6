use sea_orm_migration::prelude::*;

use crate::PLATFORM_ROLE;
use crate::tenant_table::execute_all;

/// Operators' accesses end with the account of their operator, and mails about them are counted for each operator.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &up()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &down()).await
    }
}

/// The transaction that changes an operator ends their accesses to all tenants, as the platform role: the policy allows the end of what is
/// open and no other change. It marks each row, since the entry in the log of the tenant is added afterwards, in the scope of the tenant.
fn up() -> Vec<String> {
    vec![
        "ALTER TABLE support_accesses ADD COLUMN operator_epoch bigint, \
         ADD COLUMN end_unlogged boolean NOT NULL DEFAULT false"
            .to_owned(),
        format!(
            "CREATE POLICY support_accesses_platform_update ON support_accesses FOR UPDATE TO {PLATFORM_ROLE} \
             USING (status IN ('pending', 'active')) WITH CHECK (status = 'ended')"
        ),
        format!(
            "GRANT SELECT (operator_epoch, end_unlogged), UPDATE (status, ended_at, end_unlogged) \
             ON TABLE support_accesses TO {PLATFORM_ROLE}"
        ),
        "ALTER TABLE account_notices DROP CONSTRAINT account_notices_kind_check".to_owned(),
        "ALTER TABLE account_notices ADD CONSTRAINT account_notices_kind_check \
         CHECK (kind ~ '^[a-z_]{1,40}(:[0-9a-f-]{36})?$')"
            .to_owned(),
    ]
}

fn down() -> Vec<String> {
    vec![
        // Row-level security binds the owner too, so no DELETE would reach the rows of single operators.
        "TRUNCATE account_notices".to_owned(),
        "ALTER TABLE account_notices DROP CONSTRAINT account_notices_kind_check".to_owned(),
        "ALTER TABLE account_notices ADD CONSTRAINT account_notices_kind_check CHECK (kind ~ '^[a-z_]{1,40}$')"
            .to_owned(),
        "DROP POLICY support_accesses_platform_update ON support_accesses".to_owned(),
        format!("REVOKE UPDATE (status, ended_at, end_unlogged) ON TABLE support_accesses FROM {PLATFORM_ROLE}"),
        "ALTER TABLE support_accesses DROP COLUMN operator_epoch, DROP COLUMN end_unlogged".to_owned(),
    ]
}
