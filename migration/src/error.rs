use sea_orm_migration::DbErr;

/// Why roles, database or schema could not be brought where they were to go. Every message is one line and
/// holds no password.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The URL of the database makes no sense.
    #[error("the database URL cannot be understood: {cause}")]
    Url {
        /// What is wrong with it.
        cause: sqlx::Error,
    },
    /// No connection.
    #[error("cannot connect to {target}: {cause}")]
    Connect {
        /// Who wanted to go where.
        target: String,
        /// Why it did not work.
        cause: sqlx::Error,
    },
    /// The database did not do what it was asked.
    #[error("{step}: {cause}")]
    Step {
        /// What it was asked.
        step: String,
        /// Why it did not.
        cause: sqlx::Error,
    },
    /// A migration failed, or the database has had one that is not known here.
    #[error("migration: {}", one_line(.0))]
    Migration(DbErr),
    /// Another process has been migrating this database for longer than anybody should wait.
    #[error("another process has been holding the migration lock for {seconds} seconds")]
    Locked {
        /// For how long it was waited.
        seconds: u64,
    },
    /// Something about the roles, the database or the request does not hold.
    #[error("{0}")]
    Refused(String),
}

impl MigrationError {
    /// Whether the step lost a race against another process that did the same, so that doing it again helps.
    pub(crate) fn is_race(&self) -> bool {
        let Self::Step {
            cause: sqlx::Error::Database(error),
            ..
        } = self
        else {
            return false;
        };
        match error.code().as_deref() {
            // duplicate_object, duplicate_database, unique_violation in a catalogue.
            Some("42710" | "42P04" | "23505") => true,
            // PostgreSQL has no code of its own for two sessions changing one row of a catalogue.
            Some("XX000") => error.message().contains("concurrently updated"),
            _ => false,
        }
    }
}

/// A [`TenantTable`](crate::TenantTable) that was described wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("table {table}: {problem}")]
pub struct TableError {
    /// Name of the table that the description is for.
    pub table: String,
    /// What is wrong with it.
    pub problem: String,
}

fn one_line(error: &DbErr) -> String {
    error.to_string().replace('\n', "; ")
}
