use std::sync::LazyLock;

use sea_orm::{DbErr, QueryResult, TryGetable};
use tenantry_domain::kernel::{Constraint, StoreError};

/// The tables of Tenantry itself, in order, as the catalogue of the migrations lists them. What is stored in
/// them is checked before, so that a violated CHECK constraint is a fault of ours and not the caller's.
pub static OWN_TABLES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let catalogue = include_str!("../../../../migration/catalogue.txt");
    let names = catalogue.lines().filter_map(|line| {
        let name = line.strip_prefix("table\tpublic.")?.split('\t').next()?;
        // A partition is listed below its table.
        (!name.contains('/')).then_some(name)
    });
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
});

/// Whether a table is one of Tenantry itself.
pub(crate) fn is_own(table: &str) -> bool {
    // The partitions of usage are named after their table.
    OWN_TABLES.binary_search(&table).is_ok() || table.starts_with("usage_events_")
}

/// What went wrong in the driver, in the words of the port.
pub(crate) fn from_sqlx(error: sqlx::Error) -> StoreError {
    match error {
        sqlx::Error::Database(error) => from_database(error.as_ref()),
        // These end the connection or never had one; the statement may be tried again later.
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => StoreError::Unavailable(error.to_string()),
        // `sqlx::Error` is non-exhaustive; the rest are mistakes of ours (decoding, arguments, configuration).
        other => StoreError::Other(other.to_string()),
    }
}

/// What went wrong in the ORM: only decoding rows is left to it, so all of these are mistakes of ours.
pub(crate) fn from_orm(error: DbErr) -> StoreError {
    StoreError::Other(error.to_string())
}

/// A column of a row, for statements that bring no entity's rows.
pub(crate) fn column<T: TryGetable>(row: &QueryResult, name: &str) -> Result<T, StoreError> {
    row.try_get("", name).map_err(from_orm)
}

/// By SQLSTATE (PostgreSQL manual, appendix A) and constraint name.
fn from_database(error: &dyn sqlx::error::DatabaseError) -> StoreError {
    let state = error.code().unwrap_or_default().into_owned();
    let constraint = || constraint(error.constraint().unwrap_or_default());
    match state.as_str() {
        "23505" => StoreError::Unique(constraint()),
        // PostgreSQL 18 tells ON DELETE RESTRICT apart (23001).
        "23503" | "23001" => StoreError::Reference(constraint()),
        "23514" => of_embedder(error, StoreError::Check, error.constraint()),
        "23P01" => of_embedder(error, StoreError::Exclusion, error.constraint()),
        "23502" => of_embedder(error, StoreError::Missing, column_of(error)),
        "40001" | "40P01" => StoreError::Contention,
        // Insufficient privilege: row-level security, or a grant that is missing.
        "42501" => StoreError::RowSecurity(error.message().to_owned()),
        // Lock, statement and idle timeouts, resources, operator intervention, connection exceptions.
        "55P03" | "57014" | "25P03" => StoreError::Unavailable(error.message().to_owned()),
        state
            if ["08", "53", "57", "58"]
                .iter()
                .any(|class| state.starts_with(class)) =>
        {
            StoreError::Unavailable(error.message().to_owned())
        }
        // A write to a standby, or to a server that is read-only for maintenance.
        "25006" => StoreError::Unavailable(error.message().to_owned()),
        "0A000" if error.message().contains("recovery") => {
            StoreError::Unavailable(error.message().to_owned())
        }
        state if state.starts_with("22") => StoreError::Value {
            state: state.to_owned(),
            reason: data_exception(state),
        },
        state => StoreError::Other(format!("{} (SQLSTATE {state})", error.message())),
    }
}

/// A constraint of an embedding service's table that does not hold, by the name of the constraint or column. What is stored in
/// our own tables is checked before, so that there it is a fault of ours.
fn of_embedder(
    error: &dyn sqlx::error::DatabaseError,
    violated: fn(String) -> StoreError,
    name: Option<&str>,
) -> StoreError {
    let name = name.unwrap_or_default();
    match error.table() {
        Some(table) if is_own(table) => StoreError::Other(format!("a row of {table} violates {name}")),
        Some(_) | None => violated(name.to_owned()),
    }
}

fn column_of(error: &dyn sqlx::error::DatabaseError) -> Option<&str> {
    error
        .try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?
        .column()
}

/// The name of a data exception (PostgreSQL manual, appendix A). The server names no table with it, and its message may quote
/// what is in other rows.
fn data_exception(state: &str) -> &'static str {
    match state {
        "22001" => "string data too long",
        "22003" => "numeric value out of range",
        "22007" => "invalid datetime format",
        "22008" => "datetime field overflow",
        "22012" => "division by zero",
        "22021" => "character not in repertoire",
        "22023" => "invalid parameter value",
        "22030" => "duplicate JSON object key value",
        "22032" => "invalid JSON text",
        "22P02" => "invalid text representation",
        "22P03" => "invalid binary representation",
        "22P05" => "untranslatable character",
        _ => "data exception",
    }
}

fn constraint(name: &str) -> Constraint {
    match name {
        "tenants_slug_key" => Constraint::TenantSlug,
        "tenants_subdomain_key" => Constraint::TenantSubdomain,
        "users_email_key" => Constraint::UserEmail,
        "invitations_email_key" => Constraint::InvitationEmail,
        "passkeys_credential_key" => Constraint::PasskeyCredential,
        "custom_roles_name_key" => Constraint::RoleName,
        "tenant_domains_domain_key" => Constraint::DomainClaimed,
        "domain_hosts_pkey" => Constraint::DomainHeld,
        "operators_email_key" => Constraint::OperatorEmail,
        "projects_name_key" => Constraint::ProjectName,
        "project_members_member_key" => Constraint::ProjectMember,
        name if name.ends_with("_project_id_fkey") => Constraint::ProjectReference,
        "tasks_assignee_id_fkey"
        | "projects_owner_id_fkey"
        | "project_members_user_id_fkey"
        | "resources_created_by_fkey" => Constraint::UserReference,
        other => Constraint::Other(other.to_owned()),
    }
}

/// A JSON column that does not hold what the domain expects, or a value that is no JSON.
pub(crate) fn from_json(error: serde_json::Error) -> StoreError {
    StoreError::Other(format!("JSON column: {error}"))
}
