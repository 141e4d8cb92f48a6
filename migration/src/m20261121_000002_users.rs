use sea_orm_migration::prelude::*;

use crate::TenantTable;

/// The people of a tenant.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        table().create(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        table().drop(manager).await
    }
}

fn table() -> TenantTable {
    TenantTable::new("users")
        .column("email", "text NOT NULL")
        .column("full_name", "text NOT NULL")
        .column("role", "text NOT NULL")
        .column("is_active", "boolean NOT NULL")
        .column("email_verified", "boolean NOT NULL")
        .column("password_hash", "text NOT NULL")
        .versioned()
        .soft_deleted()
        .check("users_role_check", "role IN ('admin', 'member', 'viewer')")
        // The address of somebody who was removed can be used again.
        .unique_where("users_email_key", &["email"], "deleted_at IS NULL")
}
