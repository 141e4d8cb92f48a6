use async_trait::async_trait;
use sea_orm::sea_query::{ExprTrait as _, SimpleExpr};
use sea_orm::{ActiveValue::Set, ColumnTrait as _, FromQueryResult as _, QueryResult};
use tenantry_domain::kernel::{
    OperatorId, Page, PageRequest, StoreError, SupportAccessId, SupportUseId, Time, UserId,
};
use tenantry_domain::tenant::{SupportAccess, SupportAccesses, SupportLevel, SupportStatus, SupportUse};

use crate::kernel::error::{column, from_orm};
use crate::kernel::store::{PgStore, exactly_one, unknown};
use crate::kernel::tx::Lock;

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "support_accesses")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub operator_id: Uuid,
        pub operator_name: String,
        pub operator_epoch: Option<i64>,
        pub reason: String,
        pub access: String,
        pub minutes: i32,
        pub status: String,
        pub preapproved: bool,
        pub decided_by: Option<Uuid>,
        pub decided_at: Option<DateTimeUtc>,
        pub lapses_at: DateTimeUtc,
        pub expires_at: Option<DateTimeUtc>,
        pub ended_at: Option<DateTimeUtc>,
        pub end_unlogged: bool,
    }

    crate::tenant_entity!(Entity, Model, ActiveModel, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

mod support_use {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "support_access_uses")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub support_access_id: Uuid,
        pub operation: String,
        pub entity: String,
        pub requests: i64,
        pub last_at: DateTimeUtc,
    }

    crate::tenant_entity!(Entity, Model, ActiveModel, Column);
}

/// `$1` is the tenant. The row of the key is locked, so of requests at once one is the first.
const COUNT_USE: &str = "\
INSERT INTO support_access_uses AS u (tenant_id, id, created_at, support_access_id, operation, entity, requests, last_at) \
VALUES ($1, $2, $3, $4, $5, $6, 1, $3) \
ON CONFLICT (tenant_id, support_access_id, operation, entity) DO UPDATE \
   SET requests = u.requests + 1, last_at = GREATEST(u.last_at, EXCLUDED.last_at) WHERE u.tenant_id = $1 \
RETURNING u.requests = 1 AS is_first";

/// `$1` is the tenant, `$2` a user who counts as no admin already. `User::is_acting_admin` in SQL, of a user who has logged in.
const END_WITHOUT_APPROVER: &str = "\
UPDATE support_accesses AS s SET status = 'ended', ended_at = $3 \
 WHERE s.tenant_id = $1 AND s.status = 'active' AND s.expires_at > $3 AND s.decided_by IS NOT NULL \
   AND (s.decided_by = $2 OR NOT EXISTS (SELECT FROM users u WHERE u.tenant_id = $1 AND u.id = s.decided_by \
        AND u.role = 'admin' AND u.custom_role IS NULL AND u.is_active AND u.deleted_at IS NULL)) \
RETURNING s.*";

/// `$1` is the tenant.
const END_PREAPPROVED: &str = "\
UPDATE support_accesses AS s SET status = 'ended', ended_at = $2 \
 WHERE s.tenant_id = $1 AND s.status = 'active' AND s.expires_at > $2 AND s.preapproved RETURNING s.*";

/// `$1` is the tenant.
const TAKE_UNLOGGED_ENDS: &str = "\
UPDATE support_accesses AS s SET end_unlogged = false WHERE s.tenant_id = $1 AND s.end_unlogged RETURNING s.*";

/// `$1` is the tenant. Uses go with their access.
const DELETE_BEFORE: &str = "\
DELETE FROM support_accesses AS s WHERE s.tenant_id = $1 AND s.id IN (\
    SELECT o.id FROM support_accesses o WHERE o.tenant_id = $1 AND o.created_at < $2 ORDER BY o.created_at, o.id LIMIT $3) \
RETURNING s.id";

/// `$1` is the tenant. It counts up to the bound.
const HAS_ROOM_FOR_USE: &str = "\
SELECT (SELECT count(*) FROM (SELECT FROM support_access_uses u WHERE u.tenant_id = $1 AND u.support_access_id = $2 LIMIT $5) n) < $5 \
    OR EXISTS (SELECT FROM support_access_uses u \
        WHERE u.tenant_id = $1 AND u.support_access_id = $2 AND u.operation = $3 AND u.entity = $4) AS has_room";

#[async_trait]
impl SupportAccesses for PgStore {
    async fn insert(&mut self, access: &SupportAccess) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(access.id.uuid()),
            created_at: Set(access.created_at),
            operator_id: Set(access.operator.uuid()),
            operator_name: Set(access.operator_name.clone()),
            operator_epoch: Set(access.operator_epoch),
            reason: Set(access.reason.clone()),
            access: Set(access.access.as_str().to_owned()),
            minutes: Set(i32::try_from(access.minutes).map_err(|error| StoreError::Other(error.to_string()))?),
            lapses_at: Set(access.lapses_at),
            ..changes(access)
        };
        self.tx.insert(row).await
    }

    async fn find(&mut self, id: SupportAccessId) -> Result<Option<SupportAccess>, StoreError> {
        let row = self.tx.get::<Entity>(id.uuid()).await?;
        row.map(SupportAccess::try_from).transpose()
    }

    async fn find_for_update(&mut self, id: SupportAccessId) -> Result<Option<SupportAccess>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Id.eq(id.uuid()));
        let row = find.lock(Lock::Update).one().await?;
        row.map(SupportAccess::try_from).transpose()
    }

    async fn count_open(&mut self, operator: OperatorId, now: Time) -> Result<u64, StoreError> {
        let find = self
            .tx
            .find::<Entity>()
            .filter(Column::OperatorId.eq(operator.uuid()));
        let open = standing(SupportStatus::Pending, now).or(standing(SupportStatus::Active, now));
        find.filter(open).count().await
    }

    async fn list(
        &mut self,
        status: Option<SupportStatus>,
        now: Time,
        page: PageRequest,
    ) -> Result<Page<SupportAccess>, StoreError> {
        let mut find = self.tx.find::<Entity>();
        if let Some(status) = status {
            find = find.filter(standing(status, now));
        }
        find.newest(page).await?.try_map(SupportAccess::try_from)
    }

    async fn update(&mut self, access: &SupportAccess) -> Result<(), StoreError> {
        let update = self.tx.update::<Entity>().set(changes(access));
        exactly_one(update.filter(Column::Id.eq(access.id.uuid())).run().await?)
    }

    async fn end_without_approver(
        &mut self,
        leaving: Option<UserId>,
        now: Time,
    ) -> Result<Vec<SupportAccess>, StoreError> {
        let arguments = [leaving.map(UserId::uuid).into(), now.into()];
        let rows = self.tx.fetch_all_fixed(END_WITHOUT_APPROVER, arguments).await?;
        rows.iter().map(of_row).collect()
    }

    async fn end_preapproved(&mut self, now: Time) -> Result<Vec<SupportAccess>, StoreError> {
        let rows = self.tx.fetch_all_fixed(END_PREAPPROVED, [now.into()]).await?;
        rows.iter().map(of_row).collect()
    }

    async fn take_unlogged_ends(&mut self) -> Result<Vec<SupportAccess>, StoreError> {
        let rows = self.tx.fetch_all_fixed(TAKE_UNLOGGED_ENDS, []).await?;
        rows.iter().map(of_row).collect()
    }

    async fn delete_before(&mut self, time: Time, limit: u32) -> Result<u64, StoreError> {
        let arguments = [time.into(), i64::from(limit).into()];
        let rows = self.tx.fetch_all_fixed(DELETE_BEFORE, arguments).await?;
        Ok(rows.len() as u64)
    }

    async fn has_room_for_use(
        &mut self,
        access: SupportAccessId,
        (operation, entity): (&str, &str),
        most: u32,
    ) -> Result<bool, StoreError> {
        let arguments = [
            access.uuid().into(),
            operation.into(),
            entity.into(),
            i64::from(most).into(),
        ];
        let row = self.tx.fetch_fixed(HAS_ROOM_FOR_USE, arguments).await?;
        row.map_or(Ok(false), |row| column(&row, "has_room"))
    }

    async fn count_use(
        &mut self,
        access: SupportAccessId,
        id: SupportUseId,
        (operation, entity): (&str, &str),
        now: Time,
    ) -> Result<bool, StoreError> {
        let arguments = [
            id.uuid().into(),
            now.into(),
            access.uuid().into(),
            operation.into(),
            entity.into(),
        ];
        let row = self.tx.fetch_fixed(COUNT_USE, arguments).await?;
        row.map_or(Ok(false), |row| column(&row, "is_first"))
    }

    async fn uses(
        &mut self,
        access: SupportAccessId,
        page: PageRequest,
    ) -> Result<Page<SupportUse>, StoreError> {
        let of_access = support_use::Column::SupportAccessId.eq(access.uuid());
        let find = self.tx.find::<support_use::Entity>().filter(of_access);
        Ok(find.newest(page).await?.map(|row| SupportUse {
            id: row.id.into(),
            operation: row.operation,
            entity: row.entity,
            requests: row.requests,
            first_at: row.created_at,
            last_at: row.last_at,
        }))
    }
}

/// Those that have a status at a time.
pub(crate) fn standing(status: SupportStatus, now: Time) -> SimpleExpr {
    let stored = |status: SupportStatus| Column::Status.eq(status.as_str());
    match status {
        SupportStatus::Pending => stored(SupportStatus::Pending).and(Column::LapsesAt.gt(now)),
        SupportStatus::Lapsed => stored(SupportStatus::Pending).and(Column::LapsesAt.lte(now)),
        SupportStatus::Active => stored(SupportStatus::Active).and(Column::ExpiresAt.gt(now)),
        SupportStatus::Expired => stored(SupportStatus::Active).and(Column::ExpiresAt.lte(now)),
        SupportStatus::Denied | SupportStatus::Withdrawn | SupportStatus::Ended => stored(status),
    }
}

fn changes(access: &SupportAccess) -> ActiveModel {
    ActiveModel {
        status: Set(access.status.as_str().to_owned()),
        preapproved: Set(access.preapproved),
        decided_by: Set(access.decided_by.map(UserId::uuid)),
        decided_at: Set(access.decided_at),
        expires_at: Set(access.expires_at),
        ended_at: Set(access.ended_at),
        ..Default::default()
    }
}

fn of_row(row: &QueryResult) -> Result<SupportAccess, StoreError> {
    Model::from_query_result(row, "").map_err(from_orm)?.try_into()
}

/// What an access allows, as it is stored.
pub(crate) fn level(text: &str) -> Result<SupportLevel, StoreError> {
    SupportLevel::parse(text).ok_or_else(|| unknown("support_accesses.access", text))
}

impl TryFrom<Model> for SupportAccess {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.into(),
            created_at: row.created_at,
            operator: row.operator_id.into(),
            operator_name: row.operator_name,
            operator_epoch: row.operator_epoch,
            reason: row.reason,
            access: level(&row.access)?,
            minutes: row.minutes.into(),
            status: SupportStatus::parse(&row.status)
                .ok_or_else(|| unknown("support_accesses.status", &row.status))?,
            preapproved: row.preapproved,
            decided_by: row.decided_by.map(Into::into),
            decided_at: row.decided_at,
            lapses_at: row.lapses_at,
            expires_at: row.expires_at,
            ended_at: row.ended_at,
        })
    }
}
