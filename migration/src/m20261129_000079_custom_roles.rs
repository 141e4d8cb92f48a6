use sea_orm_migration::prelude::*;

use crate::TenantTable;
use crate::tenant_table::execute_all;

/// Roles that tenants define: named sets of permissions that narrow the role of the users who have one.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        table().create(manager).await?;
        execute_all(manager, &UP.map(str::to_owned)).await
    }

    /// Users keep their role and lose what narrowed it, so they are deactivated: an admin decides about each.
    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &DOWN.map(str::to_owned)).await?;
        table().drop(manager).await
    }
}

fn table() -> TenantTable {
    TenantTable::new("custom_roles")
        .column("name", "text NOT NULL")
        .column("description", "text NOT NULL")
        .column("base_role", "text NOT NULL")
        .column("permissions", "jsonb NOT NULL")
        .check(
            "custom_roles_name_check",
            "name NOT IN ('admin', 'member', 'viewer')",
        )
        .check(
            "custom_roles_base_role_check",
            "base_role IN ('admin', 'member', 'viewer')",
        )
        .check(
            "custom_roles_permissions_check",
            "jsonb_typeof(permissions) = 'array'",
        )
        .unique("custom_roles_name_key", &["name"])
        .versioned()
}

/// Invitations have no foreign key: a settled one may name a role that is deleted, and accepting an open one makes a user, who has
/// one.
const UP: [&str; 4] = [
    "ALTER TABLE users ADD COLUMN custom_role text, \
     ADD CONSTRAINT users_custom_role_fkey FOREIGN KEY (tenant_id, custom_role) REFERENCES custom_roles (tenant_id, name)",
    "CREATE INDEX users_custom_role_idx ON users (tenant_id, custom_role)",
    "ALTER TABLE invitations ADD COLUMN custom_role text",
    "CREATE INDEX invitations_custom_role_idx ON invitations (tenant_id, custom_role) WHERE custom_role IS NOT NULL",
];

/// The owner of the tables sees no row while row-level security is forced, so it is switched off for the two statements that have
/// to find some.
const DOWN: [&str; 10] = [
    "ALTER TABLE users NO FORCE ROW LEVEL SECURITY",
    "UPDATE users SET is_active = false WHERE custom_role IS NOT NULL",
    "ALTER TABLE users FORCE ROW LEVEL SECURITY",
    "ALTER TABLE invitations NO FORCE ROW LEVEL SECURITY",
    "DELETE FROM invitations WHERE custom_role IS NOT NULL AND accepted_at IS NULL AND revoked_at IS NULL",
    "ALTER TABLE invitations FORCE ROW LEVEL SECURITY",
    "DROP INDEX invitations_custom_role_idx",
    "ALTER TABLE invitations DROP COLUMN custom_role",
    "DROP INDEX users_custom_role_idx",
    "ALTER TABLE users DROP COLUMN custom_role",
];
