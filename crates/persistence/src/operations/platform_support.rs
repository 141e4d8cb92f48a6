use async_trait::async_trait;
use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    QueryTrait as _,
};
use tenantry_domain::kernel::{Page, PageRequest, Position, StoreError, SupportAccessId, Time};
use tenantry_domain::operations::{PlatformSupportAccess, PlatformSupportAccesses, SupportFilter};

use crate::kernel::tx::before;
use crate::operations::operator::PgOperatorWork;
use crate::tenant::support_access::{
    entity::{Column, Entity, Model},
    standing,
};

/// No index is by id alone: ids of all tenants' rows are no key of the table, and there are few rows.
#[async_trait]
impl PlatformSupportAccesses for PgOperatorWork {
    async fn find(&mut self, id: SupportAccessId) -> Result<Option<PlatformSupportAccess>, StoreError> {
        let find = Entity::find().filter(Column::Id.eq(id.uuid()));
        let rows = self.tx.fetch::<Entity>(&find.into_query()).await?;
        rows.into_iter()
            .next()
            .map(PlatformSupportAccess::try_from)
            .transpose()
    }

    async fn list(
        &mut self,
        filter: &SupportFilter,
        now: Time,
        page: PageRequest,
    ) -> Result<Page<PlatformSupportAccess>, StoreError> {
        let mut condition = Condition::all();
        if let Some(tenant) = filter.tenant {
            condition = condition.add(Column::TenantId.eq(tenant.uuid()));
        }
        if let Some(operator) = filter.operator {
            condition = condition.add(Column::OperatorId.eq(operator.uuid()));
        }
        if let Some(status) = filter.status {
            condition = condition.add(standing(status, now));
        }
        if let Some(after) = page.after {
            condition = condition.add(before(Column::CreatedAt, Column::Id, after));
        }
        let find = Entity::find()
            .filter(condition)
            .order_by_desc(Column::CreatedAt)
            .order_by_desc(Column::Id)
            .limit(u64::from(page.limit) + 1);
        let rows = self.tx.fetch::<Entity>(&find.into_query()).await?;
        let position = |row: &Model| Position {
            created_at: row.created_at,
            id: row.id,
        };
        Page::from_rows(rows, page, position).try_map(PlatformSupportAccess::try_from)
    }
}

impl TryFrom<Model> for PlatformSupportAccess {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        Ok(Self {
            tenant: row.tenant_id.into(),
            access: row.try_into()?,
        })
    }
}
