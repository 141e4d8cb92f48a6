use sea_orm::sea_query::Value;
use sea_orm::{DbBackend, Statement};
use tenantry_domain::kernel::StoreError;

use super::{TenantEntity, TenantTx};

/// SQL that the builders cannot express, in the running transaction: see [`TenantTx::raw_sql`].
#[must_use]
pub struct RawSql<'tx> {
    tx: &'tx mut TenantTx,
}

impl TenantTx {
    /// The one door for SQL of one's own. The reason is a literal, so that every use can be found and asked about.
    ///
    /// Nothing adds a tenant predicate here: what keeps to the tenant is row-level security alone. The statement is a
    /// literal too, so that no text from outside becomes SQL; values are bound. Rows come back as entities, and each
    /// is compared with the tenant like any other.
    pub fn raw_sql(&mut self, because: &'static str) -> RawSql<'_> {
        tracing::debug!(because, "raw SQL");
        self.open.raw = true;
        self.open.embedded = true;
        RawSql { tx: self }
    }
}

impl RawSql<'_> {
    /// Runs a statement; how many rows it touched.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn execute(
        self,
        sql: &'static str,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<u64, StoreError> {
        self.tx.open.execute_statement(&statement(sql, values)).await
    }

    /// The rows of a statement that selects all columns of an entity.
    ///
    /// # Errors
    /// [`StoreError::IsolationBreach`] for a row of another tenant; [`StoreError`] of the database.
    pub async fn all<E: TenantEntity>(
        self,
        sql: &'static str,
        values: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<E::Model>, StoreError> {
        let rows = self.tx.open.fetch(&statement(sql, values)).await?;
        rows.iter().map(|row| self.tx.admit::<E>(row, "")).collect()
    }
}

fn statement(sql: &'static str, values: impl IntoIterator<Item = Value>) -> Statement {
    Statement::from_sql_and_values(DbBackend::Postgres, sql, values)
}
