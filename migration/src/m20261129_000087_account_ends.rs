use sea_orm_migration::prelude::*;

use crate::PLATFORM_ROLE;
use crate::tenant_table::execute_all;

/// When access to an account last ended and a session ends at the latest; requests for workspaces that were answered or come from one
/// network; and how often a mail server took a mail without an answer.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &UP.map(str::to_owned)).await?;
        let grant = format!("GRANT UPDATE (in_doubt) ON TABLE sent_mails TO {PLATFORM_ROLE}");
        execute_all(manager, &[grant]).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &DOWN.map(str::to_owned)).await
    }
}

/// Of accounts and sessions of before nothing is known: such accounts are opened by proofs as before, and such sessions end by their
/// login.
const UP: [&str; 6] = [
    "ALTER TABLE users ADD COLUMN switch_since timestamptz",
    "ALTER TABLE refresh_sessions ADD COLUMN ends_at timestamptz",
    "ALTER TABLE workspace_requests ADD COLUMN network text, ADD COLUMN answered_at timestamptz",
    "CREATE INDEX workspace_requests_network_idx ON workspace_requests (network)",
    "CREATE INDEX workspace_requests_answered_at_idx ON workspace_requests (answered_at) WHERE answered_at IS NOT NULL",
    "ALTER TABLE sent_mails ADD COLUMN in_doubt integer NOT NULL DEFAULT 0",
];

const DOWN: [&str; 5] = [
    "ALTER TABLE sent_mails DROP COLUMN in_doubt",
    // An earlier release would answer them again.
    "TRUNCATE workspace_requests",
    "ALTER TABLE workspace_requests DROP COLUMN network, DROP COLUMN answered_at",
    "ALTER TABLE refresh_sessions DROP COLUMN ends_at",
    "ALTER TABLE users DROP COLUMN switch_since",
];
