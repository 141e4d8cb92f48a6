use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{OnDelete, PLATFORM_ROLE, TenantTable};

/// Access of operators to a tenant that its admins have approved, and what was done with it.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        accesses().create(manager).await?;
        uses().create(manager).await?;
        execute_all(manager, &platform_sql()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let policy = "DROP POLICY support_accesses_platform_select ON support_accesses";
        execute_all(manager, &[policy.to_owned()]).await?;
        uses().drop(manager).await?;
        accesses().drop(manager).await
    }
}

/// `active` is an approved access, whose time may be over; `pending` one that may have lapsed: time is not part of a row.
fn accesses() -> TenantTable {
    TenantTable::new("support_accesses")
        // An operator is no row of a tenant, so this is no foreign key; the account stays, since the log names it.
        .column("operator_id", "uuid NOT NULL")
        .column("operator_name", "text NOT NULL")
        .column("reason", "text NOT NULL")
        .column("access", "text NOT NULL")
        .column("minutes", "integer NOT NULL")
        .column("status", "text NOT NULL")
        .column("preapproved", "boolean NOT NULL")
        .may_belong_to("decided_by", "users", OnDelete::Restrict)
        .column("decided_at", "timestamptz")
        .column("lapses_at", "timestamptz NOT NULL")
        .column("expires_at", "timestamptz")
        .column("ended_at", "timestamptz")
        .check("support_accesses_access_check", "access IN ('read', 'write')")
        .check("support_accesses_minutes_check", "minutes BETWEEN 1 AND 60")
        .check(
            "support_accesses_status_check",
            "status IN ('pending', 'active', 'denied', 'withdrawn', 'ended')",
        )
        .check(
            "support_accesses_active_check",
            "status <> 'active' OR num_nonnulls(decided_at, expires_at) = 2",
        )
        // The database holds the promise, too: nobody but an admin lets an operator write.
        .check(
            "support_accesses_approved_check",
            "status <> 'active' OR decided_by IS NOT NULL OR (preapproved AND access = 'read')",
        )
        .index("support_accesses_operator_id_idx", &["operator_id", "status"])
}

/// One row for each operation and entity of an access, with the number of requests.
fn uses() -> TenantTable {
    TenantTable::new("support_access_uses")
        .belongs_to("support_access_id", "support_accesses", OnDelete::Cascade)
        .column("operation", "text NOT NULL")
        .column("entity", "text NOT NULL")
        .column("requests", "bigint NOT NULL")
        .column("last_at", "timestamptz NOT NULL")
        .check("support_access_uses_requests_check", "requests > 0")
        .unique(
            "support_access_uses_key",
            &["support_access_id", "operation", "entity"],
        )
}

/// Operators list what they have asked for across tenants, and each request with a token of theirs asks for its access. The platform
/// role reads accesses and changes none: that is done in the scope of the tenant.
fn platform_sql() -> Vec<String> {
    vec![
        format!(
            "CREATE POLICY support_accesses_platform_select ON support_accesses FOR SELECT TO {PLATFORM_ROLE} USING (true)"
        ),
        format!("REVOKE ALL ON TABLE support_accesses FROM {PLATFORM_ROLE}"),
        format!(
            "GRANT SELECT (tenant_id, id, created_at, operator_id, operator_name, reason, access, minutes, status, preapproved, \
             decided_by, decided_at, lapses_at, expires_at, ended_at) ON TABLE support_accesses TO {PLATFORM_ROLE}"
        ),
    ]
}
