use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use sea_orm::sea_query::{Expr, ExprTrait as _, LockType, SimpleExpr, extension::postgres::PgExpr as _};
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, QueryTrait as _,
};
use serde_json::Value;
use tenantry_domain::events::TenantEvent;
use tenantry_domain::flags::FlagEditing;
use tenantry_domain::identity::{Email, LOGIN_ADDRESSES, Lockouts, PasswordHash, SigningKeyEditing};
use tenantry_domain::kernel::{
    Change, InvalidationPublisher, OperatorId, Page, PageRequest, Position, StoreError, SystemJobId,
    SystemScope, TenantId, Time,
};
use tenantry_domain::operations::{
    JobState, Operator, OperatorActor, OperatorEvent, OperatorEventActor, OperatorEventFilter,
    OperatorFactors, OperatorGuesses, OperatorRole, OperatorScope, OperatorWork, Operators, PlatformRows,
    PlatformSupportAccesses, RecordedOperatorEvent, SystemJob,
};
use tenantry_domain::store::Mode;
use tenantry_domain::tenant::{Tenant, TenantFilter};

use crate::Pool;
use crate::events::outbox;
use crate::kernel::error::column;
use crate::kernel::store::{Changes, exactly_one};
use crate::kernel::tx::{PlatformTx, before};
use crate::operations::operator_lockout::PgOperatorGuesses;
use crate::operations::system_job;
use crate::tenant::tenant::{entity as tenants, lifecycle};
use crate::work::task::containing;

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "operators")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub email: String,
        pub full_name: String,
        pub password_hash: String,
        pub password_expires_at: Option<DateTimeUtc>,
        pub role: String,
        pub is_active: bool,
        pub epoch: i64,
        pub version: i64,
        pub factor_at: Option<DateTimeUtc>,
        pub created_at: DateTimeUtc,
        pub updated_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
}
use entity::{ActiveModel, Column, Entity, Model};

mod event {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "operator_events")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub at: DateTimeUtc,
        pub operator_id: Option<Uuid>,
        pub action: String,
        pub reason: Option<String>,
        pub target_tenant: Option<Uuid>,
        pub request_id: String,
        pub ip: Option<String>,
        pub details: Json,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// The operators of the platform, as the platform role; the runtime role has no grant on their tables.
#[derive(Clone)]
pub struct PgOperators {
    platform: Pool,
    publisher: Arc<dyn InvalidationPublisher>,
}

impl std::fmt::Debug for PgOperators {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PgOperators")
            .field("platform", &self.platform)
            .finish_non_exhaustive()
    }
}

impl PgOperators {
    /// Operators over a pool of the platform role; `publisher` gets every change of a tenant.
    pub fn new(platform: Pool, publisher: Arc<dyn InvalidationPublisher>) -> Self {
        Self { platform, publisher }
    }

    async fn one(
        &self,
        because: SystemScope,
        condition: impl sea_orm::sea_query::IntoCondition,
    ) -> Result<Option<Operator>, StoreError> {
        let tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        one(tx, condition).await
    }

    fn work(&self, tx: PlatformTx, scope: &OperatorScope) -> Box<dyn OperatorWork> {
        Box::new(PgOperatorWork {
            tx,
            scope: scope.clone(),
            changes: Changes::new(Arc::clone(&self.publisher)),
        })
    }
}

#[async_trait]
impl Operators for PgOperators {
    async fn find(&self, because: SystemScope, id: OperatorId) -> Result<Option<Operator>, StoreError> {
        self.one(because, Column::Id.eq(id.uuid())).await
    }

    async fn find_by_email(
        &self,
        because: SystemScope,
        email: &Email,
    ) -> Result<Option<Operator>, StoreError> {
        self.one(because, Column::Email.eq(email.as_str())).await
    }

    async fn find_to_log_in(
        &self,
        because: SystemScope,
        email: &Email,
    ) -> Result<Option<Operator>, StoreError> {
        let tx = PlatformTx::begin_for_guest(&self.platform, because, Mode::Read).await?;
        one(tx, Column::Email.eq(email.as_str())).await
    }

    async fn login_addresses(
        &self,
        because: SystemScope,
        email: &Email,
        since: Time,
    ) -> Result<Vec<Option<String>>, StoreError> {
        let mut tx = PlatformTx::begin_for_guest(&self.platform, because, Mode::Read).await?;
        let arguments = [email.as_str().into(), since.into()];
        let rows = tx.fetch_fixed(LOGINS, arguments).await?;
        tx.commit().await?;
        rows.iter().map(|row| column(row, "ip")).collect()
    }

    async fn list(&self, because: SystemScope) -> Result<Vec<Operator>, StoreError> {
        let find = Entity::find()
            .order_by_asc(Column::CreatedAt)
            .order_by_asc(Column::Id);
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let rows = tx.fetch::<Entity>(&find.into_query()).await?;
        tx.commit().await?;
        rows.into_iter().map(Operator::try_from).collect()
    }

    async fn begin(&self, scope: &OperatorScope) -> Result<Box<dyn OperatorWork>, StoreError> {
        let tx = PlatformTx::begin(&self.platform, because(scope), Mode::Write).await?;
        Ok(self.work(tx, scope))
    }

    async fn begin_for_guest(&self, scope: &OperatorScope) -> Result<Box<dyn OperatorWork>, StoreError> {
        let tx = PlatformTx::begin_for_guest(&self.platform, because(scope), Mode::Write).await?;
        Ok(self.work(tx, scope))
    }

    async fn begin_guess(&self, because: SystemScope) -> Result<Box<dyn OperatorGuesses>, StoreError> {
        let tx = PlatformTx::begin_for_guest(&self.platform, because, Mode::Write).await?;
        Ok(Box::new(PgOperatorGuesses(tx)))
    }
}

const REQUEUE: &str =
    "UPDATE jobs j SET state = 'queued' WHERE j.tenant_id = $1 AND j.state = 'parked' RETURNING j.id";

const BURY: &str = "SELECT tenant_bury($1, $2) AS buried";

/// From where an operator has logged in. The limit is [`LOGIN_ADDRESSES`].
const LOGINS: &str = "\
SELECT DISTINCT e.ip FROM operator_events e JOIN operators o ON o.id = e.operator_id \
 WHERE o.email = $1 AND e.at >= $2 AND e.action = 'operator.logged_in' LIMIT 1000";

const _: () = assert!(LOGIN_ADDRESSES == 1_000);

fn because(scope: &OperatorScope) -> SystemScope {
    match scope.actor() {
        OperatorActor::Operator(_) => SystemScope::because("an operator's request"),
        OperatorActor::System(reason) => SystemScope::because(reason),
    }
}

async fn one(
    mut tx: PlatformTx,
    condition: impl sea_orm::sea_query::IntoCondition,
) -> Result<Option<Operator>, StoreError> {
    let find = Entity::find().filter(condition.into_condition());
    let rows = tx.fetch::<Entity>(&find.into_query()).await?;
    tx.commit().await?;
    rows.into_iter().next().map(Operator::try_from).transpose()
}

/// An open transaction of an operator's.
pub(crate) struct PgOperatorWork {
    pub(crate) tx: PlatformTx,
    pub(crate) scope: OperatorScope,
    pub(crate) changes: Changes,
}

#[async_trait]
impl OperatorWork for PgOperatorWork {
    async fn tenant(&mut self, id: TenantId) -> Result<Option<Tenant>, StoreError> {
        let find = tenants::Entity::find().filter(tenants::Column::Id.eq(id.uuid()));
        let rows = self.tx.fetch::<tenants::Entity>(&find.into_query()).await?;
        rows.into_iter().next().map(Tenant::try_from).transpose()
    }

    async fn tenants(
        &mut self,
        filter: &TenantFilter,
        page: PageRequest,
    ) -> Result<Page<Tenant>, StoreError> {
        use tenants::Column;
        let mut find = tenants::Entity::find().filter(matching(filter));
        if let Some(after) = page.after {
            find = find.filter(before(Column::CreatedAt, Column::Id, after));
        }
        let find = find
            .order_by_desc(Column::CreatedAt)
            .order_by_desc(Column::Id)
            .limit(u64::from(page.limit) + 1);
        let rows = self.tx.fetch::<tenants::Entity>(&find.into_query()).await?;
        let position = |row: &tenants::Model| Position {
            created_at: row.created_at,
            id: row.id,
        };
        Page::from_rows(rows, page, position).try_map(Tenant::try_from)
    }

    async fn events(
        &mut self,
        filter: &OperatorEventFilter,
        page: PageRequest,
    ) -> Result<Page<RecordedOperatorEvent>, StoreError> {
        let mut find = event::Entity::find().filter(recorded(filter));
        if let Some(after) = page.after {
            find = find.filter(before(event::Column::At, event::Column::Id, after));
        }
        let find = find
            .order_by_desc(event::Column::At)
            .order_by_desc(event::Column::Id)
            .limit(u64::from(page.limit) + 1);
        let rows = self.tx.fetch::<event::Entity>(&find.into_query()).await?;
        let ids = rows.iter().filter_map(|row| row.operator_id);
        let names = Entity::find().filter(Column::Id.is_in(ids));
        let names = self.tx.fetch::<Entity>(&names.into_query()).await?;
        let names: HashMap<_, _> = names.into_iter().map(|row| (row.id, row.full_name)).collect();
        let position = |row: &event::Model| Position {
            created_at: row.at,
            id: row.id,
        };
        let page = Page::from_rows(rows, page, position);
        Ok(page.map(|row| RecordedOperatorEvent {
            id: row.id.into(),
            at: row.at,
            operator: row.operator_id.map(Into::into),
            operator_name: row.operator_id.and_then(|id| names.get(&id).cloned()),
            action: row.action,
            reason: row.reason,
            target_tenant: row.target_tenant.map(Into::into),
            request_id: row.request_id,
            ip: row.ip,
            details: row.details,
        }))
    }

    async fn tenant_for_update(&mut self, id: TenantId) -> Result<Option<Tenant>, StoreError> {
        let find = tenants::Entity::find().filter(tenants::Column::Id.eq(id.uuid()));
        let find = find.lock(LockType::NoKeyUpdate).into_query();
        let rows = self.tx.fetch::<tenants::Entity>(&find).await?;
        rows.into_iter().next().map(Tenant::try_from).transpose()
    }

    async fn update_lifecycle(&mut self, tenant: &Tenant) -> Result<(), StoreError> {
        self.changes.note(Change::Tenant(tenant.id));
        let update = tenants::Entity::update_many()
            .set(lifecycle(tenant)?)
            .filter(tenants::Column::Id.eq(tenant.id.uuid()));
        exactly_one(self.tx.execute(&update.into_query()).await?)
    }

    async fn emit(&mut self, event: TenantEvent) -> Result<(), StoreError> {
        exactly_one(self.tx.execute(&outbox::insertion(event)).await?)
    }

    async fn requeue_parked(&mut self, tenant: TenantId) -> Result<u64, StoreError> {
        let rows = self.tx.fetch_fixed(REQUEUE, [tenant.uuid().into()]).await?;
        Ok(rows.len() as u64)
    }

    async fn bury(&mut self, tenant: TenantId, at: Time) -> Result<bool, StoreError> {
        self.changes.note(Change::Tenant(tenant));
        let arguments = [tenant.uuid().into(), at.into()];
        let rows = self.tx.fetch_fixed(BURY, arguments).await?;
        rows.first().map_or(Ok(false), |row| column(row, "buried"))
    }

    async fn system_jobs(
        &mut self,
        state: Option<JobState>,
        page: PageRequest,
    ) -> Result<Page<SystemJob>, StoreError> {
        system_job::page(&mut self.tx, state, page).await
    }

    async fn system_job_for_update(&mut self, id: SystemJobId) -> Result<Option<SystemJob>, StoreError> {
        system_job::find_for_update(&mut self.tx, id).await
    }

    async fn update_system_job(&mut self, job: &SystemJob) -> Result<(), StoreError> {
        system_job::store(&mut self.tx, job).await
    }

    async fn operators(&mut self, page: PageRequest) -> Result<Page<Operator>, StoreError> {
        let mut find = Entity::find();
        if let Some(after) = page.after {
            find = find.filter(before(Column::CreatedAt, Column::Id, after));
        }
        let find = find
            .order_by_desc(Column::CreatedAt)
            .order_by_desc(Column::Id)
            .limit(u64::from(page.limit) + 1);
        let rows = self.tx.fetch::<Entity>(&find.into_query()).await?;
        let position = |row: &Model| Position {
            created_at: row.created_at,
            id: row.id,
        };
        Page::from_rows(rows, page, position).try_map(Operator::try_from)
    }

    async fn insert(&mut self, operator: &Operator) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(operator.id.uuid()),
            email: Set(operator.email.as_str().to_owned()),
            password_hash: Set(operator.password_hash.as_str().to_owned()),
            password_expires_at: Set(operator.password_expires_at),
            role: Set(operator.role.as_str().to_owned()),
            epoch: Set(operator.epoch),
            version: Set(operator.version),
            full_name: Set(operator.full_name.clone()),
            is_active: Set(operator.is_active),
            created_at: Set(operator.created_at),
            updated_at: Set(operator.updated_at),
            ..Default::default()
        };
        exactly_one(self.tx.execute(&sea_orm::Insert::one(row).into_query()).await?)
    }

    async fn lock_operator(&mut self, operator: OperatorId) -> Result<Option<Operator>, StoreError> {
        let find = Entity::find().filter(Column::Id.eq(operator.uuid()));
        let find = find.lock(LockType::Update).into_query();
        let rows = self.tx.fetch::<Entity>(&find).await?;
        rows.into_iter().next().map(Operator::try_from).transpose()
    }

    async fn replace_password(&mut self, operator: &Operator) -> Result<(), StoreError> {
        let update = Entity::update_many()
            .col_expr(Column::PasswordHash, Expr::value(operator.password_hash.as_str()))
            .col_expr(
                Column::PasswordExpiresAt,
                Expr::value(operator.password_expires_at),
            )
            .col_expr(Column::Epoch, Expr::value(operator.epoch))
            .col_expr(Column::Version, Expr::value(operator.version))
            .col_expr(Column::UpdatedAt, Expr::value(operator.updated_at))
            .filter(Column::Id.eq(operator.id.uuid()));
        exactly_one(self.tx.execute(&update.into_query()).await?)
    }

    async fn lock_owners(&mut self) -> Result<Vec<OperatorId>, StoreError> {
        let find = Entity::find()
            .filter(Column::Role.eq(OperatorRole::Owner.as_str()))
            .filter(Column::IsActive.eq(true))
            .order_by_asc(Column::Id);
        let find = find.lock(LockType::Update).into_query();
        let rows = self.tx.fetch::<Entity>(&find).await?;
        Ok(rows.into_iter().map(|row| row.id.into()).collect())
    }

    async fn update(&mut self, operator: &Operator) -> Result<(), StoreError> {
        let update = Entity::update_many()
            .col_expr(Column::FullName, Expr::value(operator.full_name.as_str()))
            .col_expr(Column::Role, Expr::value(operator.role.as_str()))
            .col_expr(Column::IsActive, Expr::value(operator.is_active))
            .col_expr(Column::Epoch, Expr::value(operator.epoch))
            .col_expr(Column::Version, Expr::value(operator.version))
            .col_expr(Column::UpdatedAt, Expr::value(operator.updated_at))
            .filter(Column::Id.eq(operator.id.uuid()));
        exactly_one(self.tx.execute(&update.into_query()).await?)
    }

    async fn keyed(&mut self, route: &str, key: &str, since: Time) -> Result<Option<Value>, StoreError> {
        use event::Column;
        let Some(operator) = self.scope.operator() else {
            return Ok(None);
        };
        let find = event::Entity::find()
            .filter(Column::OperatorId.eq(operator.uuid()))
            .filter(Column::At.gt(since))
            .filter(Expr::cust_with_values(
                "details #>> '{idempotency,route}' = $1 AND details #>> '{idempotency,key}' = $2",
                [route, key],
            ))
            .order_by_desc(Column::At)
            .limit(1);
        let rows = self.tx.fetch::<event::Entity>(&find.into_query()).await?;
        Ok(rows.into_iter().next().map(|event| event.details))
    }

    async fn renew_hash(&mut self, operator: &Operator, renewed: &PasswordHash) -> Result<(), StoreError> {
        let update = Entity::update_many()
            .col_expr(Column::PasswordHash, Expr::value(renewed.as_str()))
            .filter(Column::Id.eq(operator.id.uuid()))
            .filter(Column::PasswordHash.eq(operator.password_hash.as_str()));
        self.tx.execute(&update.into_query()).await.map(|_| ())
    }

    fn flags(&mut self) -> &mut dyn FlagEditing {
        self
    }

    fn signing_keys(&mut self) -> &mut dyn SigningKeyEditing {
        self
    }

    fn rows(&mut self) -> &mut dyn PlatformRows {
        self
    }

    fn support_accesses(&mut self) -> &mut dyn PlatformSupportAccesses {
        self
    }

    fn factors(&mut self) -> &mut dyn OperatorFactors {
        self
    }

    fn lockouts(&mut self) -> &mut dyn Lockouts {
        &mut self.tx
    }

    async fn record(&mut self, record: OperatorEvent) -> Result<(), StoreError> {
        let row = event::ActiveModel {
            id: Set(record.id.uuid()),
            at: Set(record.at),
            operator_id: Set(self.scope.operator().map(OperatorId::uuid)),
            action: Set(record.action.to_owned()),
            reason: Set(record.reason),
            target_tenant: Set(record.target_tenant.map(TenantId::uuid)),
            request_id: Set(self.scope.request().as_str().to_owned()),
            ip: Set(record.ip),
            details: Set(record.details),
        };
        exactly_one(self.tx.execute(&sea_orm::Insert::one(row).into_query()).await?)
    }

    async fn commit(mut self: Box<Self>, record: OperatorEvent) -> Result<(), StoreError> {
        self.record(record).await?;
        let Self { tx, changes, .. } = *self;
        let done = tx.commit().await;
        // Published when it is dropped: after the commit, also when that was cut off.
        drop(changes);
        done
    }
}

fn recorded(filter: &OperatorEventFilter) -> Condition {
    use event::Column;
    let parts = [
        filter
            .operator
            .map(|operator| Column::OperatorId.eq(operator.uuid())),
        filter.actor.map(by),
        filter.action.as_deref().map(|action| Column::Action.eq(action)),
        filter.tenant.map(|tenant| Column::TargetTenant.eq(tenant.uuid())),
        filter.from.map(|from| Column::At.gte(from)),
        filter.to.map(|to| Column::At.lt(to)),
    ];
    parts.into_iter().flatten().fold(Condition::all(), Condition::add)
}

/// Those of a kind of actor, as [`RecordedOperatorEvent::actor`] tells it.
fn by(actor: OperatorEventActor) -> SimpleExpr {
    use event::Column;
    let of_guests = OperatorEventActor::OF_GUESTS;
    match actor {
        OperatorEventActor::Operator => Column::OperatorId.is_not_null(),
        OperatorEventActor::Guest => Column::OperatorId.is_null().and(Column::Action.is_in(of_guests)),
        OperatorEventActor::System => Column::OperatorId
            .is_null()
            .and(Column::Action.is_not_in(of_guests)),
    }
}

fn matching(filter: &TenantFilter) -> Condition {
    use tenants::Column;
    let mut all = Condition::all();
    if let Some(status) = filter.status {
        all = all.add(Column::Status.eq(status.as_str()));
    }
    if let Some(plan) = &filter.plan {
        all = all.add(Column::Plan.eq(plan.as_str()));
    }
    if let Some(q) = &filter.q {
        let like = |column: Column| Expr::col(column).ilike(containing(q));
        all = all.add(Condition::any().add(like(Column::Name)).add(like(Column::Slug)));
    }
    all
}

impl TryFrom<Model> for Operator {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let role = OperatorRole::parse(&row.role);
        Ok(Self {
            role: role
                .ok_or_else(|| StoreError::Other(format!("unknown role of an operator: {}", row.role)))?,
            version: row.version,
            id: row.id.into(),
            email: Email::stored(row.email),
            full_name: row.full_name,
            is_active: row.is_active,
            password_hash: PasswordHash::new(row.password_hash),
            password_expires_at: row.password_expires_at,
            epoch: row.epoch,
            factor_at: row.factor_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}
