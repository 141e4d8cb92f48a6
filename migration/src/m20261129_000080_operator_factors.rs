use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{APP_ROLE, PLATFORM_ROLE};

/// The second factors of operators, and failed guesses at their accounts.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut sql = [FACTOR_AT, FACTORS, CODES, LOCKOUTS, LAST_AT]
            .map(str::to_owned)
            .to_vec();
        for (table, update) in GRANTED {
            sql.push(format!(
                "REVOKE ALL ON TABLE {table} FROM PUBLIC, {APP_ROLE}, {PLATFORM_ROLE}"
            ));
            sql.push(format!(
                "GRANT SELECT, INSERT, DELETE{update} ON TABLE {table} TO {PLATFORM_ROLE}"
            ));
        }
        sql.push(format!(
            "GRANT UPDATE (factor_at) ON TABLE operators TO {PLATFORM_ROLE}"
        ));
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let drop = GRANTED.iter().map(|(table, _)| format!("DROP TABLE {table}"));
        let column = "ALTER TABLE operators DROP COLUMN factor_at".to_owned();
        let sql: Vec<_> = drop.chain([column]).collect();
        execute_all(manager, &sql).await
    }
}

/// The tables, each with the grant on the columns that change. No [`TenantTable`](crate::TenantTable) is among them: operators are in no
/// tenant, and the runtime role never sees them.
const GRANTED: [(&str, &str); 3] = [
    (
        "operator_totp_factors",
        ", UPDATE (sealed_secret, confirmed_at, last_step)",
    ),
    ("operator_recovery_codes", ""),
    (
        "operator_lockouts",
        ", UPDATE (failures, last_at, locked_until, exempt_until)",
    ),
];

const FACTOR_AT: &str = "ALTER TABLE operators ADD COLUMN factor_at timestamptz";

const FACTORS: &str = "\
CREATE TABLE operator_totp_factors (
    operator_id uuid NOT NULL,
    sealed_secret bytea NOT NULL,
    confirmed_at timestamptz,
    last_step bigint,
    created_at timestamptz NOT NULL,
    CONSTRAINT operator_totp_factors_pkey PRIMARY KEY (operator_id),
    CONSTRAINT operator_totp_factors_operator_id_fkey FOREIGN KEY (operator_id)
        REFERENCES operators (id) ON DELETE CASCADE,
    CONSTRAINT operator_totp_factors_sealed_secret_check CHECK (octet_length(sealed_secret) BETWEEN 1 AND 200)
)";

const CODES: &str = "\
CREATE TABLE operator_recovery_codes (
    operator_id uuid NOT NULL,
    code_hash bytea NOT NULL,
    CONSTRAINT operator_recovery_codes_pkey PRIMARY KEY (operator_id, code_hash),
    CONSTRAINT operator_recovery_codes_operator_id_fkey FOREIGN KEY (operator_id)
        REFERENCES operators (id) ON DELETE CASCADE,
    CONSTRAINT operator_recovery_codes_code_hash_check CHECK (octet_length(code_hash) = 32)
)";

/// Of an address that no operator may have, so it does not refer to one.
const LOCKOUTS: &str = "\
CREATE TABLE operator_lockouts (
    account bytea NOT NULL,
    kind text NOT NULL,
    place text NOT NULL,
    failures integer NOT NULL,
    last_at timestamptz NOT NULL,
    locked_until timestamptz,
    exempt_until timestamptz,
    CONSTRAINT operator_lockouts_pkey PRIMARY KEY (account, kind, place),
    CONSTRAINT operator_lockouts_account_check CHECK (octet_length(account) = 16),
    CONSTRAINT operator_lockouts_kind_check CHECK (kind IN ('password', 'code')),
    CONSTRAINT operator_lockouts_place_check CHECK (length(place) BETWEEN 1 AND 60),
    CONSTRAINT operator_lockouts_failures_check CHECK (failures >= 0)
)";

const LAST_AT: &str = "CREATE INDEX operator_lockouts_last_at_idx ON operator_lockouts (last_at)";
