use std::sync::Arc;

use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ActiveValue::Unchanged};
use tenantry_domain::kernel::{Change, StoreError};
use tenantry_domain::plans::Subscription;
use tenantry_domain::tenant::{
    DataKey, DataKeys, RowWork, Slug, StatusChange, Tenant, TenantFacts, TenantStatus, Tenants,
};

use crate::kernel::error::from_json;
use crate::kernel::store::{PgStore, exactly_one, unknown};
use crate::kernel::tx::Lock;
use crate::plans::plan::{signed, unsigned};

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "tenants")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub name: String,
        pub slug: String,
        pub subdomain: Option<String>,
        pub plan: String,
        pub plan_version: i32,
        pub agreed: Json,
        pub status: String,
        pub settings: Json,
        pub created_at: DateTimeUtc,
        pub updated_at: DateTimeUtc,
        pub deleted_at: Option<DateTimeUtc>,
        pub version: i64,
        pub suspended_for_payment: bool,
        pub suspended_at: Option<DateTimeUtc>,
        pub purge_at: Option<DateTimeUtc>,
        pub status_reason: Option<String>,
        pub status_actor: Option<String>,
        pub status_actor_id: Option<Uuid>,
        pub row_work: Option<String>,
        pub row_counts: Json,
    }

    impl ActiveModelBehavior for ActiveModel {}

    // A tenant belongs to itself.
    crate::tenant_entity!(Entity, Model, Column, Id, id);
}
use entity::{ActiveModel, Entity, Model};

/// Why the row of a tenant is never left out.
const BY_STATE: &str = "the state of a tenant decides what can be done in it";

#[async_trait]
impl Tenants for PgStore {
    async fn current(&mut self) -> Result<Option<Tenant>, StoreError> {
        self.tx
            .find::<Entity>()
            .with_deleted(BY_STATE)
            .one()
            .await?
            .map(Tenant::try_from)
            .transpose()
    }

    async fn current_for_update(&mut self) -> Result<Option<Tenant>, StoreError> {
        self.tx
            .find::<Entity>()
            .with_deleted(BY_STATE)
            .lock(Lock::Update)
            .one()
            .await?
            .map(Tenant::try_from)
            .transpose()
    }

    async fn insert(&mut self, tenant: &Tenant, first_key: &DataKey) -> Result<(), StoreError> {
        self.changes.note(Change::Tenant(tenant.id));
        let row = ActiveModel {
            id: Set(tenant.id.uuid()),
            created_at: Set(tenant.created_at),
            ..changes(tenant)?
        };
        self.tx.insert(row).await?;
        DataKeys::insert(self, first_key).await
    }

    async fn update(&mut self, tenant: &Tenant) -> Result<(), StoreError> {
        self.changes.note(Change::Tenant(tenant.id));
        let update = self.tx.update::<Entity>().with_deleted(BY_STATE);
        exactly_one(update.set(changes(tenant)?).run().await?)
    }
}

impl TryFrom<Model> for Tenant {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let facts = TenantFacts::try_from(&row)?;
        let status_change = row
            .status_reason
            .zip(row.status_actor)
            .map(|(reason, actor)| StatusChange {
                reason,
                actor,
                actor_id: row.status_actor_id,
            });
        let row_work = row
            .row_work
            .as_ref()
            .map(|text| RowWork::parse(text).ok_or_else(|| unknown("tenants.row_work", text)));
        Ok(Self {
            id: facts.id,
            name: row.name,
            slug: facts.slug,
            subdomain: facts.subdomain,
            plan: facts.subscription.plan.clone(),
            plan_version: facts.subscription.version,
            agreed: facts.subscription.agreed.clone(),
            status: facts.status,
            suspended_for_payment: row.suspended_for_payment,
            settings: serde_json::from_value(row.settings).map_err(from_json)?,
            created_at: row.created_at,
            updated_at: row.updated_at,
            suspended_at: row.suspended_at,
            deleted_at: row.deleted_at,
            purge_at: row.purge_at,
            status_change,
            row_work: row_work.transpose()?,
            row_counts: serde_json::from_value(row.row_counts).map_err(from_json)?,
            version: row.version,
        })
    }
}

impl TryFrom<&Model> for TenantFacts {
    type Error = StoreError;

    fn try_from(row: &Model) -> Result<Self, StoreError> {
        let slug = |text: &String| Slug::parse(text).ok_or_else(|| unknown("tenants.slug", text));
        Ok(Self {
            id: row.id.into(),
            slug: slug(&row.slug)?,
            subdomain: row.subdomain.as_ref().map(slug).transpose()?,
            subscription: Arc::new(Subscription {
                plan: row.plan.clone(),
                version: unsigned(row.plan_version)?,
                agreed: serde_json::from_value(row.agreed.clone()).map_err(from_json)?,
            }),
            status: TenantStatus::parse(&row.status).ok_or_else(|| unknown("tenants.status", &row.status))?,
        })
    }
}

/// All columns that may change; the id is there for the database's check, not to be written.
fn changes(tenant: &Tenant) -> Result<ActiveModel, StoreError> {
    let lifecycle = lifecycle(tenant)?;
    Ok(ActiveModel {
        id: Unchanged(tenant.id.uuid()),
        name: Set(tenant.name.clone()),
        slug: Set(tenant.slug.as_str().to_owned()),
        subdomain: Set(tenant.subdomain.as_ref().map(|label| label.as_str().to_owned())),
        plan: Set(tenant.plan.clone()),
        plan_version: Set(signed(tenant.plan_version)?),
        agreed: Set(serde_json::to_value(&tenant.agreed).map_err(from_json)?),
        settings: Set(serde_json::to_value(&tenant.settings).map_err(from_json)?),
        ..lifecycle
    })
}

/// The columns that say where a tenant is in its life: all that the platform role may change of it.
pub(crate) fn lifecycle(tenant: &Tenant) -> Result<ActiveModel, StoreError> {
    let change = tenant.status_change.as_ref();
    Ok(ActiveModel {
        status: Set(tenant.status.as_str().to_owned()),
        suspended_for_payment: Set(tenant.suspended_for_payment),
        suspended_at: Set(tenant.suspended_at),
        deleted_at: Set(tenant.deleted_at),
        purge_at: Set(tenant.purge_at),
        status_reason: Set(change.map(|change| change.reason.clone())),
        status_actor: Set(change.map(|change| change.actor.clone())),
        status_actor_id: Set(change.and_then(|change| change.actor_id)),
        row_work: Set(tenant.row_work.map(|work| work.as_str().to_owned())),
        row_counts: Set(serde_json::to_value(&tenant.row_counts).map_err(from_json)?),
        updated_at: Set(tenant.updated_at),
        version: Set(tenant.version),
        ..Default::default()
    })
}
