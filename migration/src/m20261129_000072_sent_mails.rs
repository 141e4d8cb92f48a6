use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{APP_ROLE, PLATFORM_ROLE};

/// Mails that were sent within a day, so that an address, a tenant and an account get a bounded number of them.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = [
            TABLE.to_owned(),
            RECIPIENT.to_owned(),
            OF_TENANT.to_owned(),
            SENT_AT.to_owned(),
            format!("REVOKE ALL ON TABLE sent_mails FROM PUBLIC, {APP_ROLE}, {PLATFORM_ROLE}"),
            format!("GRANT SELECT, INSERT, DELETE ON TABLE sent_mails TO {PLATFORM_ROLE}"),
        ];
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        execute_all(manager, &["DROP TABLE sent_mails".to_owned()]).await
    }
}

/// Not a [`TenantTable`](crate::TenantTable): an address is counted over all tenants. The tenant is no foreign key, so that a
/// row outlives it for its day.
const TABLE: &str = "\
CREATE TABLE sent_mails (
    id uuid NOT NULL,
    of_tenant uuid NOT NULL,
    recipient bytea NOT NULL,
    kind text NOT NULL,
    is_verified boolean NOT NULL,
    sent_at timestamptz NOT NULL,
    CONSTRAINT sent_mails_pkey PRIMARY KEY (id),
    CONSTRAINT sent_mails_recipient_check CHECK (octet_length(recipient) = 32)
)";

const RECIPIENT: &str = "CREATE INDEX sent_mails_recipient_idx ON sent_mails (recipient, sent_at)";

const OF_TENANT: &str =
    "CREATE INDEX sent_mails_of_tenant_idx ON sent_mails (of_tenant, sent_at) WHERE NOT is_verified";

/// For the job that deletes rows.
const SENT_AT: &str = "CREATE INDEX sent_mails_sent_at_idx ON sent_mails (sent_at)";
