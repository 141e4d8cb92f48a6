//! The only module in which a connection or an open transaction can be named.

mod builders;
mod cursor;
mod pool;
mod raw;
mod turns;

use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ActiveModelTrait, ColumnTrait as _, DbBackend, EntityTrait, IdenStatic as _, Iterable as _, QueryResult,
    QueryTrait, Statement, StatementBuilder, Value,
};
use sea_query_sqlx::SqlxValues;
use sqlx::postgres::{PgDatabaseError, PgRow, PgSeverity};
use sqlx::{AssertSqlSafe, Row as _};
use tenantry_domain::kernel::{Position, StoreError, SystemScope, TenantId, Time};
use tenantry_domain::store::Mode;
use uuid::Uuid;

use crate::kernel::error::{from_orm, from_sqlx, is_own};
use pool::Connection;
pub(crate) use pool::Party;

pub(crate) use builders::before;
pub use builders::{Delete, Find, FindBoth, Lock, Update};
pub use pool::{Pool, PoolConfig, StatementTimeouts};
pub use raw::RawSql;

/// An entity whose rows each belong to one tenant. Implemented by [`tenant_entity!`](crate::tenant_entity).
pub trait TenantEntity: EntityTrait {
    /// The table, for messages.
    fn table() -> &'static str {
        Self::default().table_name()
    }

    /// The column that holds the tenant.
    fn tenant_column() -> Self::Column;

    /// The tenant of a row, which is compared with the scope's before anybody sees the row.
    fn tenant_of(model: &Self::Model) -> TenantId;
}

/// The column that marks rows of an entity as deleted, where it has one: by its name, so that no entity has to say so.
fn deleted_at_of<E: TenantEntity>() -> Option<E::Column> {
    E::Column::iter().find(|column| column.as_str() == "deleted_at")
}

/// An entity whose rows are found by an id and listed by their creation time. Implemented by
/// [`tenant_entity!`](crate::tenant_entity) with four names.
pub trait ListedEntity: TenantEntity {
    /// The column by which [`TenantTx::get`] finds a row.
    fn id_column() -> Self::Column;

    /// The column of the creation time.
    fn created_at_column() -> Self::Column;

    /// The position of a row in the list.
    fn position(model: &Self::Model) -> Position;
}

/// States that an entity is tenant-scoped: `tenant_entity!(Entity, Model, Column)`, with the tenant in the field
/// `tenant_id`, or `tenant_entity!(Entity, Model, Column, Id, id)` where it is another. For an entity whose
/// rows have an `id` and a `created_at` and whose active model behaves as usual, `tenant_entity!(Entity, Model, ActiveModel, Column)`
/// states that too, for [`TenantTx::get`] and [`Find::newest`].
#[macro_export]
macro_rules! tenant_entity {
    ($entity:ty, $model:ty, $column:ident) => {
        $crate::tenant_entity!($entity, $model, $column, TenantId, tenant_id);
    };
    ($entity:ty, $model:ty, $active:ty, $column:ident) => {
        $crate::tenant_entity!($entity, $model, $column);

        impl $crate::__sea_orm::ActiveModelBehavior for $active {}

        impl $crate::ListedEntity for $entity {
            fn id_column() -> $column {
                $column::Id
            }

            fn created_at_column() -> $column {
                $column::CreatedAt
            }

            fn position(model: &$model) -> $crate::__domain::kernel::Position {
                (model.created_at, model.id).into()
            }
        }
    };
    ($entity:ty, $model:ty, $column:ident, $variant:ident, $field:ident) => {
        impl $crate::TenantEntity for $entity {
            fn tenant_column() -> $column {
                $column::$variant
            }

            fn tenant_of(model: &$model) -> $crate::__domain::kernel::TenantId {
                $crate::__domain::kernel::TenantId::from(model.$field)
            }
        }
    };
}

/// An open transaction of one tenant.
///
/// It is not a `ConnectionTrait` and has no `Deref`: what it offers are builders that already carry the tenant
/// predicate, and each row that comes back is compared with the tenant. Dropped without having been ended (a
/// cancelled request, a panic), its connection is closed, never used again.
pub struct TenantTx {
    open: OpenTx,
    tenant: TenantId,
    mode: Mode,
}

impl std::fmt::Debug for TenantTx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TenantTx")
            .field("tenant", &self.tenant)
            .finish_non_exhaustive()
    }
}

impl TenantTx {
    /// The tenant that everything in this transaction belongs to.
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }

    /// Looks for rows.
    pub fn find<E: TenantEntity>(&mut self) -> Find<'_, E> {
        Find::new(self)
    }

    /// Changes rows.
    pub fn update<E: TenantEntity>(&mut self) -> Update<'_, E> {
        Update::new(self)
    }

    /// Deletes rows.
    pub fn delete<E: TenantEntity>(&mut self) -> Delete<'_, E> {
        Delete::new(self)
    }

    /// Returns the row with an id.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub async fn get<E: ListedEntity>(&mut self, id: Uuid) -> Result<Option<E::Model>, StoreError> {
        self.find::<E>().filter(E::id_column().eq(id)).one().await
    }

    /// Inserts a row. The tenant is set here; a row that names another one is refused.
    ///
    /// # Errors
    /// [`StoreError::IsolationBreach`] for a row of another tenant; [`StoreError`] of the database.
    pub async fn insert<E>(&mut self, row: impl ActiveModelTrait<Entity = E>) -> Result<(), StoreError>
    where
        E: TenantEntity,
    {
        let row = self.claim::<E, _>(row)?;
        let insert = sea_orm::Insert::one(row).into_query();
        let inserted = self.open_for::<E>().execute(&insert).await?;
        if inserted == 1 {
            Ok(())
        } else {
            Err(StoreError::Other(format!("inserted {inserted} rows for one")))
        }
    }

    /// Inserts a row unless a unique key of it is taken; whether it was inserted. The tenant is set as by
    /// [`TenantTx::insert`]; the row that has the key is one of this tenant, whose keys are all led by it.
    ///
    /// # Errors
    /// [`StoreError::IsolationBreach`] for a row of another tenant; [`StoreError`] of the database.
    pub async fn insert_unless_there<E>(
        &mut self,
        row: impl ActiveModelTrait<Entity = E>,
    ) -> Result<bool, StoreError>
    where
        E: TenantEntity,
    {
        let row = self.claim::<E, _>(row)?;
        let nothing = OnConflict::new().do_nothing().to_owned();
        let insert = sea_orm::Insert::one(row).on_conflict(nothing).into_query();
        Ok(self.open_for::<E>().execute(&insert).await? == 1)
    }

    /// Begins a transaction with the tenant set, in one round trip.
    ///
    /// `SET LOCAL` rather than `set_config()`, because only the former reaches the workers of a Citus cluster; the
    /// value is a typed UUID, so there is nothing to escape. Crate-private: outside, a transaction begins with a
    /// scope, through `Units`.
    pub(crate) async fn begin(pool: &Pool, tenant: TenantId, mode: Mode) -> Result<Self, StoreError> {
        Self::begin_for(Party::Tenant(tenant), pool, tenant, mode).await
    }

    /// The same on the connections of a party other than the tenant's own users and jobs.
    pub(crate) async fn begin_for(
        party: Party,
        pool: &Pool,
        tenant: TenantId,
        mode: Mode,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            open: OpenTx::begin(pool, party, &beginning(tenant, mode)).await?,
            tenant,
            mode,
        })
    }

    /// One row of a fixed statement that carries the tenant predicate itself, as with [`TenantTx::fetch_fixed`], in a
    /// transaction that is nothing else: it begins, asks and ends in one message, which is one round trip in place of
    /// three. The first argument is always the tenant, `$1`.
    pub(crate) async fn look_up(
        pool: &Pool,
        tenant: TenantId,
        lookup: &'static Lookup,
        arguments: &[Literal],
    ) -> Result<Option<QueryResult>, StoreError> {
        if !pool.prepares() {
            let mut tx = Self::begin(pool, tenant, Mode::Read).await?;
            let row = tx
                .fetch_fixed(lookup.sql, arguments.iter().map(Literal::value))
                .await?;
            tx.commit().await?;
            return Ok(row);
        }
        let literals = [Literal::Id(tenant.uuid())];
        let literals = literals.iter().chain(arguments).map(ToString::to_string);
        let literals = literals.collect::<Vec<_>>().join(", ");
        let message = format!(
            "{}; EXECUTE {}({literals}); COMMIT",
            beginning(tenant, Mode::Read),
            lookup.name
        );
        let (mut open, mut rows) = OpenTx::open(pool, Party::Tenant(tenant), &message, Some(lookup)).await?;
        open.release();
        Ok(rows.pop().map(QueryResult::from))
    }

    pub(crate) async fn commit(mut self) -> Result<(), StoreError> {
        match self.mode {
            Mode::Read if self.open.leave_open() => Ok(()),
            Mode::Read | Mode::Write | Mode::WriteBehind => self.open.commit().await,
        }
    }

    pub(crate) async fn rollback(self) {
        self.open.rollback().await;
    }

    /// One row of a fixed statement that carries the tenant predicate itself, for what the builders cannot express. The
    /// first argument is always the tenant, `$1`.
    pub(crate) async fn fetch_fixed(
        &mut self,
        sql: &'static str,
        arguments: impl IntoIterator<Item = Value>,
    ) -> Result<Option<QueryResult>, StoreError> {
        Ok(self.fetch_all_fixed(sql, arguments).await?.pop())
    }

    /// All rows of such a statement.
    pub(crate) async fn fetch_all_fixed(
        &mut self,
        sql: &'static str,
        arguments: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<QueryResult>, StoreError> {
        let mut values = vec![Value::from(self.tenant.uuid())];
        values.extend(arguments);
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, values);
        self.open.embedded = false;
        self.open.fetch(&statement).await
    }

    /// The transaction, for a statement over the table of an entity.
    fn open_for<E: TenantEntity>(&mut self) -> &mut OpenTx {
        self.open.embedded = !is_own(E::table());
        &mut self.open
    }

    /// Sets the tenant of a row that is about to be inserted.
    fn claim<E, A>(&self, mut row: A) -> Result<A, StoreError>
    where
        E: TenantEntity,
        A: ActiveModelTrait<Entity = E>,
    {
        if let Some(Value::Uuid(Some(found))) = row.get(E::tenant_column()).into_value() {
            self.tripwire::<E>(TenantId::from(found))?;
        }
        row.set(E::tenant_column(), Value::from(self.tenant.uuid()));
        Ok(row)
    }

    /// The last line of defence: a row of another tenant is an event, never data.
    fn tripwire<E: TenantEntity>(&self, found: TenantId) -> Result<(), StoreError> {
        if found == self.tenant {
            return Ok(());
        }
        tracing::error!(
            event = "isolation_breach",
            table = E::table(),
            scope = %self.tenant,
            found = %found,
            "a row of another tenant was withheld"
        );
        Err(StoreError::IsolationBreach {
            table: E::table(),
            scope: self.tenant,
            found,
        })
    }
}

/// An open transaction of the platform role, across tenants, over the few tables that role may see.
pub(crate) struct PlatformTx {
    open: OpenTx,
}

impl PlatformTx {
    /// Begins a transaction; the reason is written to the log.
    pub(crate) async fn begin(pool: &Pool, because: SystemScope, mode: Mode) -> Result<Self, StoreError> {
        Self::begin_for(Party::Platform, pool, because, mode).await
    }

    /// Begins one for a caller who has not authenticated, so that such callers leave connections to operators and jobs.
    pub(crate) async fn begin_for_guest(
        pool: &Pool,
        because: SystemScope,
        mode: Mode,
    ) -> Result<Self, StoreError> {
        Self::begin_for(Party::Lookup, pool, because, mode).await
    }

    async fn begin_for(
        party: Party,
        pool: &Pool,
        because: SystemScope,
        mode: Mode,
    ) -> Result<Self, StoreError> {
        tracing::debug!(reason = because.reason(), "platform transaction");
        let begin = format!("BEGIN {}", access(mode));
        Ok(Self {
            open: OpenTx::begin(pool, party, &begin).await?,
        })
    }

    pub(crate) async fn fetch<E>(
        &mut self,
        query: &impl StatementBuilder,
    ) -> Result<Vec<E::Model>, StoreError>
    where
        E: EntityTrait,
    {
        let statement = DbBackend::Postgres.build(query);
        let rows = self.open.fetch(&statement).await?;
        rows.iter()
            .map(|row| sea_orm::FromQueryResult::from_query_result(row, "").map_err(from_orm))
            .collect()
    }

    pub(crate) async fn execute(&mut self, query: &impl StatementBuilder) -> Result<u64, StoreError> {
        self.open.execute(query).await
    }

    /// The rows of a fixed statement, for those that the builders cannot express.
    pub(crate) async fn fetch_fixed(
        &mut self,
        sql: &'static str,
        arguments: impl IntoIterator<Item = Value>,
    ) -> Result<Vec<QueryResult>, StoreError> {
        let statement = Statement::from_sql_and_values(DbBackend::Postgres, sql, arguments);
        self.open.fetch(&statement).await
    }

    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        self.open.commit().await
    }
}

/// A connection with a transaction open on it. Unless it is ended, dropping it closes the connection.
struct OpenTx {
    connection: Option<Connection>,
    /// A statement failed: PostgreSQL has aborted the transaction and would answer COMMIT with a silent ROLLBACK.
    failed: bool,
    /// The connection is gone.
    broken: bool,
    /// The driver and the server no longer agree on what is prepared on this connection.
    confused: bool,
    /// Raw SQL ran, which may have left something on the session that outlives the transaction: a cursor WITH HOLD, a
    /// setting, an advisory lock.
    raw: bool,
    /// The statement that runs is an embedding service's, so that a value that does not fit is its caller's fault.
    embedded: bool,
}

/// What raw SQL can leave on a session, taken off it. Prepared statements stay: they keep their text only.
const CLEAN_SESSION: &str = "RESET SESSION AUTHORIZATION; CLOSE ALL; RESET ALL; UNLISTEN *; \
                             SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

impl OpenTx {
    async fn begin(pool: &Pool, party: Party, sql: &str) -> Result<Self, StoreError> {
        let (open, _) = Self::open(pool, party, &pool.beginning(sql), None).await?;
        Ok(open)
    }

    /// Sends the message that begins a transaction, behind the end of the one that was left open on the connection and
    /// the preparation of what is looked up, where there is any; with the rows of what else is in it.
    ///
    /// An idle connection may have died unnoticed (the server restarted, a proxy gave up). When the message fails because of
    /// that, nothing has happened yet, or nothing but reading, so a fresh one is tried. What fails on a connection that works,
    /// such as waiting for a lock, would fail on another one as well.
    async fn open(
        pool: &Pool,
        party: Party,
        message: &str,
        lookup: Option<&'static Lookup>,
    ) -> Result<(Self, Vec<PgRow>), StoreError> {
        let mut tries_left = pool.max_size() + 1;
        loop {
            let mut connection = pool.get(party).await?;
            let ending = connection.take_left_open().then(|| "COMMIT; ".to_owned());
            let new = lookup.filter(|lookup| connection.has_to_prepare(lookup.name));
            let preparing = new.map(|it| format!("PREPARE {}({}) AS {}; ", it.name, it.types, it.sql));
            let prefix: String = [ending, preparing].into_iter().flatten().collect();
            let mut open = Self {
                connection: Some(connection),
                failed: false,
                broken: false,
                confused: false,
                raw: false,
                embedded: false,
            };
            if let Some(lookup) = lookup {
                trace(lookup.sql);
            }
            match open.send(format!("{prefix}{message}")).await {
                Err(_) if open.broken && tries_left > 0 => tries_left -= 1,
                Err(error) => {
                    // Whether the statement is prepared is not known then; that connection is closed.
                    if new.is_none() && !open.broken {
                        open.rollback().await;
                    }
                    return Err(error);
                }
                Ok(rows) => return Ok((open, rows)),
            }
        }
    }

    async fn commit(mut self) -> Result<(), StoreError> {
        if self.failed {
            self.rollback().await;
            return Err(StoreError::Other(
                "a statement had failed, so the transaction was rolled back".into(),
            ));
        }
        self.end("COMMIT").await
    }

    /// Gives the connection of a transaction that has only read to somebody who waits for one: COMMIT then goes out in one
    /// message with their BEGIN, which saves a round trip and a wake-up of the server. Nothing is lost when that fails,
    /// since there is nothing to commit. Whether somebody took it.
    fn leave_open(&mut self) -> bool {
        if self.failed || self.confused || self.raw {
            return false;
        }
        let waited_for = self.connection.take_if(|connection| connection.is_waited_for());
        waited_for.map(Connection::hand_over).is_some()
    }

    async fn rollback(mut self) {
        // Where it fails the connection is closed, which comes to the same.
        let _ = self.end("ROLLBACK").await;
    }

    /// Ends the transaction and gives the connection back. The session is cleaned in the same message: behind a pooler
    /// the next one may already be for another server connection.
    async fn end(&mut self, command: &str) -> Result<(), StoreError> {
        if self.raw {
            self.command(&format!("{command}; {CLEAN_SESSION}")).await?;
        } else {
            self.command(command).await?;
        }
        if !self.confused {
            self.release();
        }
        Ok(())
    }

    async fn fetch(&mut self, statement: &Statement) -> Result<Vec<QueryResult>, StoreError> {
        trace(&statement.sql);
        let named = self.named_statements();
        let connection = self.connection()?;
        let query = sqlx::query_with(AssertSqlSafe(statement.sql.clone()), arguments(statement));
        let rows = query.persistent(named).fetch_all(connection).await;
        let rows = self.note(rows)?;
        Ok(rows.into_iter().map(QueryResult::from).collect())
    }

    async fn execute(&mut self, query: &impl StatementBuilder) -> Result<u64, StoreError> {
        self.execute_statement(&DbBackend::Postgres.build(query)).await
    }

    async fn execute_statement(&mut self, statement: &Statement) -> Result<u64, StoreError> {
        trace(&statement.sql);
        let named = self.named_statements();
        let connection = self.connection()?;
        let query = sqlx::query_with(AssertSqlSafe(statement.sql.clone()), arguments(statement));
        let done = query.persistent(named).execute(connection).await;
        Ok(self.note(done)?.rows_affected())
    }

    /// A command without arguments.
    async fn command(&mut self, sql: &str) -> Result<(), StoreError> {
        self.send(sql.to_owned()).await.map(|_| ())
    }

    /// A message by the simple protocol: several statements are one round trip. The rows of all of them.
    async fn send(&mut self, message: String) -> Result<Vec<PgRow>, StoreError> {
        let connection = self.connection()?;
        let rows = sqlx::raw_sql(AssertSqlSafe(message)).fetch_all(connection).await;
        self.note(rows)
    }

    fn named_statements(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::named_statements)
    }

    fn connection(&mut self) -> Result<&mut sqlx::PgConnection, StoreError> {
        let connection = self.connection.as_mut();
        connection
            .map(Connection::driver)
            .ok_or_else(|| StoreError::Other("the transaction has ended".into()))
    }

    fn note<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, StoreError> {
        result.map_err(|error| {
            self.failed = true;
            self.broken |= ends_the_connection(&error);
            self.confused |= is_about_prepared_statements(&error);
            match from_sqlx(error) {
                // Our own statements have values that were checked before.
                error @ StoreError::Value { .. } if !self.embedded => StoreError::Other(error.to_string()),
                error => error,
            }
        })
    }

    /// Gives the connection back, after COMMIT or ROLLBACK went through.
    fn release(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.give_back();
        }
    }
}

/// Whether a connection cannot be used any more after an error: it broke, or the server has ended the session, which it says
/// by the severity.
fn ends_the_connection(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            true
        }
        sqlx::Error::Database(error) => error
            .try_downcast_ref::<PgDatabaseError>()
            .is_some_and(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic)),
        // `sqlx::Error` is non-exhaustive; the rest are mistakes of ours.
        _ => false,
    }
}

/// Whether a statement that the driver believes to be prepared is gone, is another, or returns other columns than it
/// did (after a migration). The driver would run into it again and again on this connection.
fn is_about_prepared_statements(error: &sqlx::Error) -> bool {
    let state = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code);
    state.is_some_and(|state| ["26000", "42P05", "0A000"].contains(&state.as_ref()))
}

/// A fixed statement that is prepared once on each connection, by name, and looked up with alone.
pub(crate) struct Lookup {
    pub name: &'static str,
    /// Of its parameters, for PREPARE.
    pub types: &'static str,
    pub sql: &'static str,
}

/// A value that can stand in the text of a statement, because nothing of its type needs to be escaped.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Literal {
    Id(Uuid),
    At(Time),
}

impl Literal {
    fn value(&self) -> Value {
        match self {
            Self::Id(id) => (*id).into(),
            Self::At(time) => (*time).into(),
        }
    }
}

impl std::fmt::Display for Literal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => write!(f, "'{id}'"),
            Self::At(time) => write!(f, "'{}'", time.to_rfc3339()),
        }
    }
}

fn beginning(tenant: TenantId, mode: Mode) -> String {
    format!(
        "BEGIN {}; SET LOCAL app.current_tenant = '{tenant}'",
        access(mode)
    )
}

/// What stands behind BEGIN.
const fn access(mode: Mode) -> &'static str {
    match mode {
        Mode::Read => "READ ONLY",
        Mode::Write => "READ WRITE",
        Mode::WriteBehind => "READ WRITE; SET LOCAL synchronous_commit = off",
    }
}

/// Waits until everything that was committed before outlasts a crash. The log is written in order, so it is enough to commit
/// something that is in it and to wait for the disk, and for a synchronous standby where there is one. A message of logical
/// decoding is such a thing, and belongs to nobody: no table is touched and no tenant set.
pub(crate) async fn make_durable(pool: &Pool) -> Result<(), StoreError> {
    let open = OpenTx::begin(pool, Party::Upkeep, MARK_THE_LOG).await?;
    open.commit().await
}

const MARK_THE_LOG: &str = "\
BEGIN READ WRITE; SET LOCAL synchronous_commit = on; SELECT pg_logical_emit_message(true, 'tenantry', '')";

/// The statement without its values, which may be secrets.
fn trace(sql: &str) {
    tracing::trace!(target: "tenantry::sql", sql);
}

fn arguments(statement: &Statement) -> SqlxValues {
    SqlxValues(
        statement
            .values
            .clone()
            .unwrap_or_else(|| sea_orm::Values(Vec::new())),
    )
}

/// Whether the server behind a pool answers, in one round trip.
pub(crate) async fn ping(pool: &Pool) -> Result<(), StoreError> {
    let (mut open, rows) =
        OpenTx::open(pool, Party::Upkeep, "BEGIN READ ONLY; SELECT 1; COMMIT", None).await?;
    open.release();
    let one: i32 = rows
        .first()
        .map_or(Ok(0), |row| row.try_get(0))
        .map_err(from_sqlx)?;
    if one == 1 {
        Ok(())
    } else {
        Err(StoreError::Other("SELECT 1 answered something else".into()))
    }
}
