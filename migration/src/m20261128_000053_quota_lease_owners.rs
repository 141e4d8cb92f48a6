use sea_orm_migration::prelude::*;

use crate::PLATFORM_ROLE;
use crate::tenant_table::execute_all;

/// What is needed to settle the leases of a server that has died: how many units it had counted before, and which tenants'
/// quotas it held parts of.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &up_sql()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = [
            "DROP POLICY quota_leases_platform_select ON quota_leases".to_owned(),
            format!("REVOKE ALL ON TABLE quota_leases FROM {PLATFORM_ROLE}"),
            format!("REVOKE SELECT (tenant_id, instance, expires_at, expired) ON TABLE quota_leases FROM {PLATFORM_ROLE}"),
            "ALTER TABLE quota_leases DROP CONSTRAINT quota_leases_counted_check, DROP COLUMN counted, DROP COLUMN counting_since"
                .to_owned(),
        ];
        execute_all(manager, &sql).await
    }
}

/// The platform role learns whose leases have expired and whose a server held, and nothing of how much they are.
fn up_sql() -> [String; 4] {
    [
        "ALTER TABLE quota_leases ADD COLUMN counted bigint NOT NULL DEFAULT 0, \
         ADD COLUMN counting_since timestamptz NOT NULL DEFAULT now(), \
         ADD CONSTRAINT quota_leases_counted_check CHECK (counted >= 0)"
            .to_owned(),
        format!(
            "CREATE POLICY quota_leases_platform_select ON quota_leases FOR SELECT TO {PLATFORM_ROLE} USING (true)"
        ),
        format!("REVOKE ALL ON TABLE quota_leases FROM {PLATFORM_ROLE}"),
        format!(
            "GRANT SELECT (tenant_id, instance, expires_at, expired) ON TABLE quota_leases TO {PLATFORM_ROLE}"
        ),
    ]
}
