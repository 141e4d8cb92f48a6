use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _};
use tenantry_domain::kernel::{Change, DomainId, Page, PageRequest, Position, StoreError, Time};
use tenantry_domain::tenant::{
    CheckResult, CustomDomain, CustomDomains, DomainName, DomainState, ReleaseReason,
};

use crate::kernel::store::{PgStore, exactly_one, unknown};
use crate::kernel::tx::{Find, Lock};

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "tenant_domains")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub domain: String,
        pub state: String,
        pub token: String,
        pub claimed_until: DateTimeUtc,
        pub verified_at: Option<DateTimeUtc>,
        pub activated_at: Option<DateTimeUtc>,
        pub failing_since: Option<DateTimeUtc>,
        pub released_at: Option<DateTimeUtc>,
        pub release_reason: Option<String>,
        pub checked_at: Option<DateTimeUtc>,
        pub check_result: Option<String>,
        pub created_at: DateTimeUtc,
        pub updated_at: DateTimeUtc,
        pub version: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

#[async_trait]
impl CustomDomains for PgStore {
    async fn find(&mut self, id: DomainId) -> Result<Option<CustomDomain>, StoreError> {
        one(self.tx.find::<Entity>().filter(Column::Id.eq(id.uuid()))).await
    }

    async fn find_for_update(&mut self, id: DomainId) -> Result<Option<CustomDomain>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Id.eq(id.uuid()));
        one(find.lock(Lock::Update)).await
    }

    async fn find_by_name(&mut self, name: &DomainName) -> Result<Option<CustomDomain>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Domain.eq(name.as_str()));
        one(find.lock(Lock::Update)).await
    }

    async fn list(&mut self, page: PageRequest) -> Result<Page<CustomDomain>, StoreError> {
        let position = |row: &Model| Position {
            created_at: row.created_at,
            id: row.id,
        };
        let find = self.tx.find::<Entity>();
        let page = find.page((Column::CreatedAt, Column::Id), page, position).await?;
        page.try_map(CustomDomain::try_from)
    }

    async fn live(&mut self) -> Result<Vec<CustomDomain>, StoreError> {
        let live = Column::State.ne(DomainState::Released.as_str());
        let find = self
            .tx
            .find::<Entity>()
            .filter(live)
            .order_by_asc(Column::CheckedAt);
        let rows = find.limit(CustomDomain::MOST).all().await?;
        let mut domains = rows
            .into_iter()
            .map(CustomDomain::try_from)
            .collect::<Result<Vec<_>, _>>()?;
        domains.sort_by_key(|domain| (domain.checked_at, domain.id));
        Ok(domains)
    }

    async fn released_until(&mut self, time: Time) -> Result<Vec<DomainId>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::ReleasedAt.lte(time));
        let rows = find.limit(CustomDomain::MOST).all().await?;
        Ok(rows.into_iter().map(|row| row.id.into()).collect())
    }

    async fn count(&mut self) -> Result<u64, StoreError> {
        let live = Column::State.ne(DomainState::Released.as_str());
        self.tx.find::<Entity>().filter(live).count().await
    }

    async fn insert(&mut self, domain: &CustomDomain) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(domain.id.uuid()),
            domain: Set(domain.domain.as_str().to_owned()),
            token: Set(domain.token.clone()),
            claimed_until: Set(domain.claimed_until),
            created_at: Set(domain.created_at),
            ..changes(domain)
        };
        self.tx.insert(row).await
    }

    async fn note_check(
        &mut self,
        id: DomainId,
        now: Time,
        result: Option<CheckResult>,
    ) -> Result<(), StoreError> {
        let checked = ActiveModel {
            checked_at: Set(Some(now)),
            check_result: Set(result.map(|result| result.as_str().to_owned())),
            ..Default::default()
        };
        let update = self.tx.update::<Entity>().set(checked);
        exactly_one(update.filter(Column::Id.eq(id.uuid())).run().await?)
    }

    async fn update(&mut self, domain: &CustomDomain) -> Result<(), StoreError> {
        // The host may lead to the tenant from now on, or no more.
        self.changes.note(Change::Tenant(self.scope.tenant()));
        let update = self.tx.update::<Entity>().set(changes(domain));
        exactly_one(update.filter(Column::Id.eq(domain.id.uuid())).run().await?)
    }

    async fn delete(&mut self, id: DomainId) -> Result<(), StoreError> {
        self.changes.note(Change::Tenant(self.scope.tenant()));
        let delete = self.tx.delete::<Entity>();
        exactly_one(delete.filter(Column::Id.eq(id.uuid())).run().await?)
    }
}

async fn one(find: Find<'_, Entity>) -> Result<Option<CustomDomain>, StoreError> {
    find.one().await?.map(CustomDomain::try_from).transpose()
}

impl TryFrom<Model> for CustomDomain {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let state = DomainState::parse(&row.state);
        let reason = row.release_reason.map(|reason| {
            ReleaseReason::parse(&reason).ok_or_else(|| unknown("tenant_domains.release_reason", &reason))
        });
        let result = row.check_result.map(|result| {
            CheckResult::parse(&result).ok_or_else(|| unknown("tenant_domains.check_result", &result))
        });
        Ok(Self {
            id: row.id.into(),
            domain: DomainName::stored(row.domain),
            state: state.ok_or_else(|| unknown("tenant_domains.state", &row.state))?,
            token: row.token,
            claimed_until: row.claimed_until,
            verified_at: row.verified_at,
            activated_at: row.activated_at,
            failing_since: row.failing_since,
            released_at: row.released_at,
            release_reason: reason.transpose()?,
            checked_at: row.checked_at,
            check_result: result.transpose()?,
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.version,
        })
    }
}

fn changes(domain: &CustomDomain) -> ActiveModel {
    ActiveModel {
        state: Set(domain.state.as_str().to_owned()),
        verified_at: Set(domain.verified_at),
        activated_at: Set(domain.activated_at),
        failing_since: Set(domain.failing_since),
        released_at: Set(domain.released_at),
        release_reason: Set(domain.release_reason.map(|reason| reason.as_str().to_owned())),
        checked_at: Set(domain.checked_at),
        check_result: Set(domain.check_result.map(|result| result.as_str().to_owned())),
        updated_at: Set(domain.updated_at),
        version: Set(domain.version),
        ..Default::default()
    }
}
