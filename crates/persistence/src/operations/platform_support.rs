use async_trait::async_trait;
use sea_orm::{
    ColumnTrait as _, Condition, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
    QueryTrait as _,
};
use tenantry_domain::kernel::{
    OperatorId, Page, PageRequest, Position, StoreError, SupportAccessId, TenantId, Time,
};
use tenantry_domain::operations::{PlatformSupportAccess, PlatformSupportAccesses, SupportFilter};

use crate::kernel::error::column;
use crate::kernel::tx::before;
use crate::operations::operator::PgOperatorWork;
use crate::tenant::support_access::{
    entity::{Column, Entity, Model},
    standing,
};

/// Ends those of an operator that are open. The policy of the platform role allows no other change.
const END_OF: &str = "\
UPDATE support_accesses SET status = 'ended', ended_at = $2, end_unlogged = true \
 WHERE operator_id = $1 AND ((status = 'pending' AND lapses_at > $2) OR (status = 'active' AND expires_at > $2)) \
RETURNING tenant_id";

/// No index is by the id or the operator alone: indexes of tenant tables are led by the tenant. There are few rows, since the upkeep
/// deletes old ones.
#[async_trait]
impl PlatformSupportAccesses for PgOperatorWork {
    async fn find(&mut self, id: SupportAccessId) -> Result<Option<PlatformSupportAccess>, StoreError> {
        let find = Entity::find().filter(Column::Id.eq(id.uuid()));
        let mut rows = self.tx.fetch::<Entity>(&find.into_query()).await?;
        // The key is tenant and id, so the database would allow an id in two tenants: then it names neither.
        let found = rows.pop().filter(|_| rows.is_empty());
        found.map(PlatformSupportAccess::try_from).transpose()
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

    async fn end_of(&mut self, operator: OperatorId, at: Time) -> Result<Vec<TenantId>, StoreError> {
        let rows = self
            .tx
            .fetch_fixed(END_OF, [operator.uuid().into(), at.into()])
            .await?;
        let tenant = |row| column::<uuid::Uuid>(row, "tenant_id").map(TenantId::from);
        rows.iter().map(tenant).collect()
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
