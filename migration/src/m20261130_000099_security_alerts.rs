use sea_orm_migration::prelude::*;

use crate::{OnDelete, TenantTable};

/// Alerts about suspicious activity, and what the security rules have counted.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        alerts().create(manager).await?;
        detections().create(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        detections().drop(manager).await?;
        alerts().drop(manager).await
    }
}

/// An alert. `open_key` names its rule and subject while it is open, so that the key lets one of them be open.
fn alerts() -> TenantTable {
    TenantTable::new("security_alerts")
        .column("rule", "text NOT NULL")
        .column("subject_kind", "text NOT NULL")
        .column("subject", "text NOT NULL")
        .column("count", "bigint NOT NULL")
        .column("first_at", "timestamptz NOT NULL")
        .column("last_at", "timestamptz NOT NULL")
        .column("severity", "text NOT NULL")
        .column("state", "text NOT NULL")
        .column("evidence", "jsonb NOT NULL")
        .column("action", "text NOT NULL")
        .column("acted_at", "timestamptz")
        .column("acknowledged_at", "timestamptz")
        .may_belong_to("acknowledged_by", "users", OnDelete::Restrict)
        .column("note", "text")
        .column("open_key", "text")
        .check("security_alerts_rule_check", "rule ~ '^[a-z_]{1,40}$'")
        .check(
            "security_alerts_subject_kind_check",
            "subject_kind IN ('user', 'api_key', 'network', 'tenant')",
        )
        .check("security_alerts_count_check", "count > 0")
        .check(
            "security_alerts_severity_check",
            "severity IN ('low', 'medium', 'high')",
        )
        .check(
            "security_alerts_action_check",
            "action IN ('none', 'step_up', 'end_sessions')",
        )
        .check(
            "security_alerts_acted_check",
            "(action = 'none') = (acted_at IS NULL)",
        )
        .check(
            "security_alerts_state_check",
            "state IN ('open', 'acknowledged') AND (state = 'open') = (open_key IS NOT NULL) \
             AND (state = 'acknowledged') = (acknowledged_at IS NOT NULL)",
        )
        .unique("security_alerts_open_key", &["open_key"])
        .index("security_alerts_rule_idx", &["rule", "state"])
        .index("security_alerts_subject_idx", &["subject", "acted_at"])
}

/// Up to which entry the audit log of a tenant was read, and what was counted in it.
fn detections() -> TenantTable {
    TenantTable::new("security_detections")
        .column("sequence", "bigint NOT NULL")
        .column("counted", "jsonb NOT NULL")
        .check("security_detections_sequence_check", "sequence >= 0")
        .single()
}
