use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{APP_ROLE, PLATFORM_ROLE};

/// Every version of each segment.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = [
            VERSIONS.to_owned(),
            PRESENT.to_owned(),
            format!("REVOKE ALL ON TABLE segment_versions FROM PUBLIC, {APP_ROLE}, {PLATFORM_ROLE}"),
            // Append-only: a version that was once in force stays on record.
            format!("GRANT SELECT, INSERT ON TABLE segment_versions TO {PLATFORM_ROLE}"),
        ];
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &["DROP TABLE segment_versions".to_owned()]).await
    }
}

/// No reference to `segments`: versions outlive the segment, so that it can be brought back. A version without a
/// definition says that the segment was deleted. By whom is null where nobody was logged in.
const VERSIONS: &str = "\
CREATE TABLE segment_versions (
    key text NOT NULL,
    version bigint NOT NULL,
    definition jsonb,
    operator_id uuid,
    created_at timestamptz NOT NULL,
    CONSTRAINT segment_versions_pkey PRIMARY KEY (key, version),
    CONSTRAINT segment_versions_definition_check CHECK (jsonb_typeof(definition) = 'object'),
    CONSTRAINT segment_versions_version_check CHECK (version > 0)
)";

/// What is there already: who made it so is in `operator_events`.
const PRESENT: &str = "\
INSERT INTO segment_versions (key, version, definition, operator_id, created_at)
SELECT key, version, definition, NULL, updated_at FROM segments";
