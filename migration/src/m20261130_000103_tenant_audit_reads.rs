use sea_orm_migration::prelude::*;

use crate::PLATFORM_ROLE;
use crate::m20261130_000097_operator_access::BYPASS;
use crate::tenant_table::execute_all;

/// What the platform role reads of tenants' audit logs.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = [
            format!(
                "CREATE POLICY audit_events_platform_select ON audit_events FOR SELECT TO {PLATFORM_ROLE} USING ({BYPASS})"
            ),
            format!("GRANT SELECT ({COLUMNS}) ON TABLE audit_events TO {PLATFORM_ROLE}"),
        ];
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = [
            format!("REVOKE SELECT ({COLUMNS}) ON TABLE audit_events FROM {PLATFORM_ROLE}"),
            "DROP POLICY audit_events_platform_select ON audit_events".to_owned(),
        ];
        execute_all(manager, &sql).await
    }
}

/// Without `before` and `after`, which have what users write at length.
const COLUMNS: &str = "tenant_id, id, created_at, action, target_type, target_id, actor_type, actor_id, request_id, ip, user_agent, \
                       outcome, risk";
