use sea_orm_migration::sea_orm::{ConnectionTrait, DbErr, QueryResult, Statement};
use sea_orm_migration::{SchemaManager, SchemaManagerConnection};
use uuid::Uuid;

use crate::tenant_table::TENANT_SETTING;
use crate::{APP_ROLE, PLATFORM_ROLE, TableError};

/// A change of the rows of a tenant table, as part of a migration.
///
/// The trap it is for: row-level security is forced, so it holds for the owner as well, and no policy is for
/// the owner. A plain `UPDATE` in a migration therefore changes no row at all, and says nothing. A data
/// migration takes the runtime role's place in each tenant in turn, counts beforehand what there is to do,
/// and compares.
///
/// ```
/// # use sea_orm_migration::prelude::*;
/// # use tenantry_migration::DataMigration;
/// # async fn up(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
/// DataMigration::on("tasks")
///     .expect("SELECT count(*) FROM tasks WHERE title = ''")
///     .run("UPDATE tasks SET title = 'Untitled', version = version + 1 WHERE title = ''")
///     .apply(manager)
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// It has to run in the migration's transaction, which on PostgreSQL is there unless the migration refuses
/// it. Until that transaction ends nobody else can write to the table; a large one is better changed by a
/// job.
///
/// What the runtime role may not do, it does not do either: rows of append-only tables stay as they are.
#[derive(Debug, Clone)]
pub struct DataMigration {
    table: String,
    expect: String,
    statement: String,
}

impl DataMigration {
    /// A change of that table's rows.
    pub fn on(table: &str) -> Self {
        Self {
            table: table.to_owned(),
            expect: String::new(),
            statement: String::new(),
        }
    }

    /// A `SELECT count(*)` of what is to be done in one tenant: how many rows the statement will touch. When
    /// the statement is through, it must say 0.
    #[must_use]
    pub fn expect(mut self, count: &str) -> Self {
        count.clone_into(&mut self.expect);
        self
    }

    /// One `UPDATE`, `INSERT` or `DELETE`. It needs no condition on the tenant: there is no row of another
    /// one to be seen. An `INSERT` writes `current_setting('app.current_tenant')::uuid` as the tenant.
    #[must_use]
    pub fn run(mut self, statement: &str) -> Self {
        statement.clone_into(&mut self.statement);
        self
    }

    /// Does it in every tenant, and gives the number of rows touched.
    ///
    /// # Errors
    /// [`DbErr::Migration`] naming the tenant and the counts when they differ or something is left to do, and
    /// when there is no transaction; otherwise the database's own. The migration is then undone as a whole.
    pub async fn apply(&self, manager: &SchemaManager<'_>) -> Result<u64, DbErr> {
        self.verify()?;
        let database = manager.get_connection();
        // The counts are only worth something while nobody else writes.
        let lock = format!("LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE", self.table);
        database.execute_unprepared(&lock).await?;
        let mut touched = 0;
        for tenant in tenants(database).await? {
            touched += self.apply_to(database, tenant).await?;
        }
        database
            .execute_unprepared(&format!("RESET ROLE; SET LOCAL {TENANT_SETTING} = ''"))
            .await?;
        tracing::info!(table = self.table, touched, "data migration done");
        Ok(touched)
    }

    async fn apply_to(&self, database: &SchemaManagerConnection<'_>, tenant: Uuid) -> Result<u64, DbErr> {
        enter(database, tenant).await?;
        let expected = self.count(database).await?;
        let done = database
            .execute_raw(plain(database, &self.statement))
            .await?
            .rows_affected();
        let fail = |what: String| {
            DbErr::Migration(format!(
                "data migration of {}: tenant {tenant}: {what}",
                self.table
            ))
        };
        if i64::try_from(done) != Ok(expected) {
            return Err(fail(format!(
                "{expected} rows were expected, {done} were touched"
            )));
        }
        let left = self.count(database).await?;
        if left != 0 {
            return Err(fail(format!("{done} rows were touched, {left} are left to do")));
        }
        Ok(done)
    }

    async fn count(&self, database: &SchemaManagerConnection<'_>) -> Result<i64, DbErr> {
        one(database, &self.expect).await?.try_get_by_index(0)
    }

    fn verify(&self) -> Result<(), DbErr> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let problem = if self.table.is_empty() || !self.table.chars().all(inner) {
            "is not the name of a table"
        } else if self.expect.is_empty() {
            "a data migration without a count to expect"
        } else if self.statement.is_empty() {
            "a data migration without a statement"
        } else {
            return Ok(());
        };
        let error = TableError {
            table: self.table.clone(),
            problem: problem.to_owned(),
        };
        Err(DbErr::Migration(error.to_string()))
    }
}

/// Every tenant, deleted ones included: they may be restored.
async fn tenants(database: &SchemaManagerConnection<'_>) -> Result<Vec<Uuid>, DbErr> {
    database
        .execute_unprepared(&format!("SET LOCAL ROLE {PLATFORM_ROLE}"))
        .await?;
    let rows = database
        .query_all_raw(plain(database, "SELECT id FROM tenants ORDER BY id"))
        .await?;
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}

/// Takes the runtime role's place in a tenant.
///
/// Outside of a transaction `SET LOCAL` does nothing but warn. Then the owner would go on to count no rows,
/// change no rows, and find the two equal. So what was set is read back.
async fn enter(database: &SchemaManagerConnection<'_>, tenant: Uuid) -> Result<(), DbErr> {
    let sql = format!("SET LOCAL ROLE {APP_ROLE}; SET LOCAL {TENANT_SETTING} = '{tenant}'");
    database.execute_unprepared(&sql).await?;
    let read = format!("SELECT current_user::text, current_setting('{TENANT_SETTING}', true)");
    let row = one(database, &read).await?;
    let role: String = row.try_get_by_index(0)?;
    let setting: Option<String> = row.try_get_by_index(1)?;
    if role == APP_ROLE && setting.is_some_and(|text| text == tenant.to_string()) {
        return Ok(());
    }
    Err(DbErr::Migration(
        "a data migration runs in a transaction, and there is none".to_owned(),
    ))
}

async fn one(database: &SchemaManagerConnection<'_>, sql: &str) -> Result<QueryResult, DbErr> {
    let row = database.query_one_raw(plain(database, sql)).await?;
    row.ok_or_else(|| DbErr::RecordNotFound(sql.to_owned()))
}

fn plain(database: &SchemaManagerConnection<'_>, sql: &str) -> Statement {
    Statement::from_string(database.get_database_backend(), sql)
}
