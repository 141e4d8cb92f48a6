use sea_orm::sea_query::{
    Asterisk, Expr, ExprTrait as _, IntoCondition, JoinType, LockBehavior, LockType, SelectStatement,
    SimpleExpr,
};
use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, DbBackend, FromQueryResult, QueryFilter as _, QueryOrder as _,
    QueryResult, QuerySelect as _, QueryTrait as _, Select, UpdateMany,
};
use tenantry_domain::kernel::{Page, PageRequest, Position, StoreError};

use super::{ListedEntity, TenantEntity, TenantTx, deleted_at_of};
use crate::kernel::error::from_orm;

/// How strongly found rows are locked until the transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Against change and deletion; the row may still be referred to (`FOR NO KEY UPDATE`).
    Update,
    /// Against change and deletion, shared with others who only want it to stay (`FOR SHARE`).
    Share,
    /// Like [`Lock::Update`], passing over rows that somebody else holds (`SKIP LOCKED`): for queues.
    UpdateSkipLocked,
}

/// Which rows of an entity with a column `deleted_at` a builder sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deleted {
    Hidden,
    Shown,
}

/// A search for rows of one entity. The tenant predicate is part of it from the start. Rows that are marked as deleted, of an
/// entity that has a column `deleted_at`, are left out unless [`Find::with_deleted`] says otherwise.
#[must_use]
pub struct Find<'tx, E: TenantEntity> {
    tx: &'tx mut TenantTx,
    select: Select<E>,
    condition: Condition,
    deleted: Deleted,
}

impl<'tx, E: TenantEntity> Find<'tx, E> {
    pub(super) fn new(tx: &'tx mut TenantTx) -> Self {
        Self {
            tx,
            select: E::find(),
            condition: Condition::all(),
            deleted: Deleted::Hidden,
        }
    }

    /// Includes rows that are marked as deleted. The reason is for readers of the code, who find all such places by this name.
    pub fn with_deleted(mut self, _because: &'static str) -> Self {
        self.deleted = Deleted::Shown;
        self
    }

    /// Only rows for which this holds too.
    pub fn filter(mut self, condition: impl IntoCondition) -> Self {
        self.condition = self.condition.add(condition.into_condition());
        self
    }

    /// Sorts by a column, smallest first.
    pub fn order_by_asc(mut self, column: E::Column) -> Self {
        self.select = self.select.order_by_asc(column);
        self
    }

    /// Sorts by a column, largest first.
    pub fn order_by_desc(mut self, column: E::Column) -> Self {
        self.select = self.select.order_by_desc(column);
        self
    }

    /// At most so many rows.
    pub fn limit(mut self, rows: u64) -> Self {
        self.select = self.select.limit(rows);
        self
    }

    /// Locks the rows that are found.
    pub fn lock(mut self, lock: Lock) -> Self {
        self.select = match lock {
            Lock::Update => self.select.lock(LockType::NoKeyUpdate),
            Lock::Share => self.select.lock(LockType::Share),
            Lock::UpdateSkipLocked => self
                .select
                .lock_with_behavior(LockType::NoKeyUpdate, LockBehavior::SkipLocked),
        };
        self
    }

    /// Joins another entity's rows of the same tenant.
    pub fn with<F: TenantEntity>(self, on: impl IntoCondition) -> FindBoth<'tx, E, F> {
        FindBoth {
            find: self,
            on: on.into_condition(),
            _joined: std::marker::PhantomData,
        }
    }

    /// The SQL, for tests and for `EXPLAIN`.
    pub fn to_sql(&self) -> String {
        DbBackend::Postgres.build(&self.scoped()).to_string()
    }

    /// The row, if there is one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn one(mut self) -> Result<Option<E::Model>, StoreError> {
        self.select = self.select.limit(1);
        Ok(self.all().await?.pop())
    }

    /// All rows.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn all(self) -> Result<Vec<E::Model>, StoreError> {
        let statement = DbBackend::Postgres.build(&self.scoped());
        let rows = self.tx.open_for::<E>().fetch(&statement).await?;
        rows.iter().map(|row| self.tx.admit::<E>(row, "")).collect()
    }

    /// How many rows there are.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn count(self) -> Result<u64, StoreError> {
        let mut count = SelectStatement::new();
        let inner = self.scoped().clear_selects().expr(Expr::value(1)).to_owned();
        count
            .expr_as(Expr::col(Asterisk).count(), "rows")
            .from_subquery(inner, "found");
        let statement = DbBackend::Postgres.build(&count);
        let rows = self.tx.open_for::<E>().fetch(&statement).await?;
        let count: i64 = match rows.first() {
            Some(row) => row.try_get("", "rows").map_err(from_orm)?,
            None => 0,
        };
        Ok(count.unsigned_abs())
    }

    /// A page, newest first, by creation time and id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn page(
        mut self,
        (created_at, id): (E::Column, E::Column),
        page: PageRequest,
        position: impl Fn(&E::Model) -> Position,
    ) -> Result<Page<E::Model>, StoreError> {
        if let Some(after) = page.after {
            self = self.filter(before(created_at, id, after));
        }
        let find = self
            .order_by_desc(created_at)
            .order_by_desc(id)
            .limit(u64::from(page.limit) + 1);
        Ok(Page::from_rows(find.all().await?, page, position))
    }

    /// The statement with the tenant predicate before all else. Conditions are nested below it, so that no `OR`
    /// of the caller can reach beside it.
    fn scoped(&self) -> SelectStatement {
        self.select
            .clone()
            .filter(self.tx.only::<E>(self.deleted, self.condition.clone()))
            .into_query()
    }
}

impl<E: ListedEntity> Find<'_, E> {
    /// A page, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn newest(self, page: PageRequest) -> Result<Page<E::Model>, StoreError> {
        self.page((E::created_at_column(), E::id_column()), page, E::position)
            .await
    }
}

/// Rows that come after a position in a newest-first list. A row comparison, so that one index range answers it.
pub(crate) fn before<C: ColumnTrait>(created_at: C, id: C, position: Position) -> Condition {
    let key = Expr::tuple([
        Expr::col(created_at.as_column_ref()),
        Expr::col(id.as_column_ref()),
    ]);
    let last = Expr::tuple([Expr::value(position.created_at), Expr::value(position.id)]);
    Condition::all().add(key.lt(last))
}

/// A search for rows of two entities that belong together; both carry the tenant predicate, and leave out deleted rows. Only
/// those of the first can be included, by [`Find::with_deleted`].
#[must_use]
pub struct FindBoth<'tx, E: TenantEntity, F: TenantEntity> {
    find: Find<'tx, E>,
    on: Condition,
    _joined: std::marker::PhantomData<F>,
}

impl<E: TenantEntity, F: TenantEntity> FindBoth<'_, E, F> {
    /// Only pairs for which this holds too.
    pub fn filter(mut self, condition: impl IntoCondition) -> Self {
        self.find = self.find.filter(condition);
        self
    }

    /// Sorts by a column of the first entity, largest first.
    pub fn order_by_desc(mut self, column: E::Column) -> Self {
        self.find = self.find.order_by_desc(column);
        self
    }

    /// At most so many pairs.
    pub fn limit(mut self, pairs: u64) -> Self {
        self.find = self.find.limit(pairs);
        self
    }

    /// The SQL, for tests and for `EXPLAIN`.
    pub fn to_sql(&self) -> String {
        DbBackend::Postgres.build(&self.scoped()).to_string()
    }

    /// All pairs.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn all(self) -> Result<Vec<(E::Model, F::Model)>, StoreError> {
        let statement = DbBackend::Postgres.build(&self.scoped());
        let tx = self.find.tx;
        let rows = tx.open_for::<E>().fetch(&statement).await?;
        rows.iter()
            .map(|row| Ok((tx.admit::<E>(row, "A_")?, tx.admit::<F>(row, "B_")?)))
            .collect()
    }

    fn scoped(&self) -> SelectStatement {
        let tx = &self.find.tx;
        let select = self
            .find
            .select
            .clone()
            .filter(tx.only::<E>(self.find.deleted, self.find.condition.clone()));
        let mut query = select.select_also(F::default()).into_query();
        query.join(
            JoinType::InnerJoin,
            F::default().table_ref(),
            tx.only::<F>(Deleted::Hidden, self.on.clone()),
        );
        query
    }
}

/// A change of rows. The tenant predicate is part of it from the start; deleted rows are left out, as by [`Find`].
#[must_use]
pub struct Update<'tx, E: TenantEntity> {
    tx: &'tx mut TenantTx,
    update: UpdateMany<E>,
    condition: Condition,
    deleted: Deleted,
}

impl<'tx, E: TenantEntity> Update<'tx, E> {
    pub(super) fn new(tx: &'tx mut TenantTx) -> Self {
        Self {
            tx,
            update: E::update_many(),
            condition: Condition::all(),
            deleted: Deleted::Hidden,
        }
    }

    /// See [`Find::with_deleted`].
    pub fn with_deleted(mut self, _because: &'static str) -> Self {
        self.deleted = Deleted::Shown;
        self
    }

    /// Sets every column that the row has set, but never the tenant: rows do not change hands.
    pub fn set<A>(mut self, row: A) -> Self
    where
        A: ActiveModelTrait<Entity = E>,
    {
        let mut row = row;
        row.not_set(E::tenant_column());
        self.update = self.update.set(row);
        self
    }

    /// Sets one column to an expression, for example a counter to its successor.
    pub fn set_expr(mut self, column: E::Column, expression: impl Into<SimpleExpr>) -> Self {
        self.update = self.update.col_expr(column, expression.into());
        self
    }

    /// Only rows for which this holds too.
    pub fn filter(mut self, condition: impl IntoCondition) -> Self {
        self.condition = self.condition.add(condition.into_condition());
        self
    }

    /// Runs it; how many rows were changed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn run(self) -> Result<u64, StoreError> {
        let only = self.tx.only::<E>(self.deleted, self.condition);
        let update = self.update.filter(only).into_query();
        self.tx.open_for::<E>().execute(&update).await
    }
}

/// A deletion of rows, for good. The tenant predicate is part of it from the start; rows that are marked as deleted are left
/// out, as by [`Find`].
#[must_use]
pub struct Delete<'tx, E: TenantEntity> {
    tx: &'tx mut TenantTx,
    condition: Condition,
    deleted: Deleted,
    _entity: std::marker::PhantomData<E>,
}

impl<'tx, E: TenantEntity> Delete<'tx, E> {
    pub(super) fn new(tx: &'tx mut TenantTx) -> Self {
        Self {
            tx,
            condition: Condition::all(),
            deleted: Deleted::Hidden,
            _entity: std::marker::PhantomData,
        }
    }

    /// See [`Find::with_deleted`].
    pub fn with_deleted(mut self, _because: &'static str) -> Self {
        self.deleted = Deleted::Shown;
        self
    }

    /// Only rows for which this holds too.
    pub fn filter(mut self, condition: impl IntoCondition) -> Self {
        self.condition = self.condition.add(condition.into_condition());
        self
    }

    /// Runs it; how many rows were deleted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn run(self) -> Result<u64, StoreError> {
        let only = self.tx.only::<E>(self.deleted, self.condition);
        let delete = E::delete_many().filter(only).into_query();
        self.tx.open_for::<E>().execute(&delete).await
    }
}

impl TenantTx {
    /// The tenant predicate of an entity, and the caller's condition nested below it.
    fn only<E: TenantEntity>(&self, deleted: Deleted, condition: Condition) -> Condition {
        let tenant = E::tenant_column().eq(self.tenant.uuid());
        let hidden = match deleted {
            Deleted::Hidden => deleted_at_of::<E>().map(|column| column.is_null()),
            Deleted::Shown => None,
        };
        let all = Condition::all().add(tenant).add_option(hidden);
        if condition.is_empty() {
            all
        } else {
            all.add(condition)
        }
    }

    /// The row, unless it is another tenant's.
    pub(super) fn admit<E: TenantEntity>(
        &self,
        row: &QueryResult,
        prefix: &str,
    ) -> Result<E::Model, StoreError> {
        let model = E::Model::from_query_result(row, prefix).map_err(from_orm)?;
        self.tripwire::<E>(E::tenant_of(&model))?;
        Ok(model)
    }
}
