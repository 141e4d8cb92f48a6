use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _};
use serde_json::Value;
use tenantry_domain::kernel::{Page, PageRequest, StoreError, Time, WebhookEndpointId};
use tenantry_domain::webhooks::{
    DisableReason, EndpointState, EndpointUrl, EventFilter, FailureStreak, SignatureKind, WebhookEndpoint,
    WebhookEndpoints,
};

use crate::kernel::store::{PgStore, exactly_one, unknown};
use crate::kernel::tx::{Find, Lock};

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "webhook_endpoints")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub url: String,
        pub description: Option<String>,
        pub event_types: Json,
        pub rate_limit: Option<i32>,
        pub ordered: bool,
        pub signature: String,
        pub public_key: Option<String>,
        pub header_names: Json,
        pub sealed_credentials: Vec<u8>,
        pub former_until: Option<DateTimeUtc>,
        pub enabled: bool,
        pub disabled_reason: Option<String>,
        pub disabled_at: Option<DateTimeUtc>,
        pub failing_since: Option<DateTimeUtc>,
        pub last_failure_at: Option<DateTimeUtc>,
        pub failures: i32,
        pub created_at: DateTimeUtc,
        pub updated_at: DateTimeUtc,
        pub deleted_at: Option<DateTimeUtc>,
        pub version: i64,
    }

    crate::tenant_entity!(Entity, Model, ActiveModel, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

#[async_trait]
impl WebhookEndpoints for PgStore {
    async fn find(&mut self, id: WebhookEndpointId) -> Result<Option<WebhookEndpoint>, StoreError> {
        let row = self.tx.get::<Entity>(id.uuid()).await?;
        row.map(WebhookEndpoint::try_from).transpose()
    }

    async fn find_for_update(
        &mut self,
        id: WebhookEndpointId,
    ) -> Result<Option<WebhookEndpoint>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Id.eq(id.uuid()));
        let row = find.lock(Lock::Update).one().await?;
        row.map(WebhookEndpoint::try_from).transpose()
    }

    async fn list(&mut self, page: PageRequest) -> Result<Page<WebhookEndpoint>, StoreError> {
        let page = self.tx.find::<Entity>().newest(page).await?;
        page.try_map(WebhookEndpoint::try_from)
    }

    async fn all(&mut self) -> Result<Vec<WebhookEndpoint>, StoreError> {
        oldest_first(self.tx.find::<Entity>()).await
    }

    async fn count(&mut self) -> Result<u64, StoreError> {
        self.tx.find::<Entity>().count().await
    }

    async fn count_enabled(&mut self) -> Result<u64, StoreError> {
        let enabled = self.tx.find::<Entity>().filter(Column::DisabledAt.is_null());
        enabled.count().await
    }

    async fn insert(&mut self, endpoint: &WebhookEndpoint) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(endpoint.id.uuid()),
            created_at: Set(endpoint.created_at),
            ..changes(endpoint)?
        };
        self.tx.insert(row).await
    }

    async fn update(&mut self, endpoint: &WebhookEndpoint) -> Result<(), StoreError> {
        let update = self.tx.update::<Entity>().set(changes(endpoint)?);
        exactly_one(update.filter(Column::Id.eq(endpoint.id.uuid())).run().await?)
    }

    async fn store_streak(
        &mut self,
        id: WebhookEndpointId,
        streak: Option<FailureStreak>,
    ) -> Result<(), StoreError> {
        let update = self.tx.update::<Entity>().set(failures(streak));
        update.filter(Column::Id.eq(id.uuid())).run().await?;
        Ok(())
    }

    async fn reseal(&mut self, id: WebhookEndpointId, sealed: &[u8]) -> Result<(), StoreError> {
        let resealed = ActiveModel {
            sealed_credentials: Set(sealed.to_vec()),
            ..Default::default()
        };
        let update = self.tx.update::<Entity>().set(resealed);
        exactly_one(update.filter(Column::Id.eq(id.uuid())).run().await?)
    }

    async fn delete(&mut self, id: WebhookEndpointId, now: Time) -> Result<(), StoreError> {
        let deleted = ActiveModel {
            enabled: Set(false),
            disabled_at: Set(Some(now)),
            header_names: Set(Value::Array(Vec::new())),
            sealed_credentials: Set(Vec::new()),
            former_until: Set(None),
            updated_at: Set(now),
            deleted_at: Set(Some(now)),
            ..Default::default()
        };
        let update = self.tx.update::<Entity>().set(deleted);
        exactly_one(update.filter(Column::Id.eq(id.uuid())).run().await?)
    }

    async fn remove(&mut self, id: WebhookEndpointId) -> Result<(), StoreError> {
        let delete = self
            .tx
            .delete::<Entity>()
            .with_deleted("the rows of deleted endpoints are removed");
        let delete = delete.filter(Column::Id.eq(id.uuid()));
        delete.filter(Column::DeletedAt.is_not_null()).run().await?;
        Ok(())
    }
}

async fn oldest_first(find: Find<'_, Entity>) -> Result<Vec<WebhookEndpoint>, StoreError> {
    let find = find.order_by_asc(Column::CreatedAt).order_by_asc(Column::Id);
    let rows = find.limit(WebhookEndpoint::MOST).all().await?;
    rows.into_iter().map(WebhookEndpoint::try_from).collect()
}

impl TryFrom<Model> for WebhookEndpoint {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let url = EndpointUrl::stored(&row.url);
        let signature = SignatureKind::parse(&row.signature);
        let filter = EventFilter::parse("", &texts(&row.event_types)?);
        let reason = row.disabled_reason.as_deref().map(|reason| {
            DisableReason::parse(reason).ok_or_else(|| unknown("webhook_endpoints.disabled_reason", reason))
        });
        let reason = reason.transpose()?;
        let streak = row.failing_since.zip(row.last_failure_at);
        Ok(Self {
            id: row.id.into(),
            // The URL may hold a token, so the error has none of it.
            url: url.ok_or_else(|| unknown("webhook_endpoints.url", "a text that is no URL"))?,
            description: row.description,
            filter: filter
                .map_err(|_| unknown("webhook_endpoints.event_types", "an entry that is no type"))?,
            rate_limit: row.rate_limit.map(i32::unsigned_abs),
            ordered: row.ordered,
            signature: signature.ok_or_else(|| unknown("webhook_endpoints.signature", &row.signature))?,
            public_key: row.public_key,
            header_names: texts(&row.header_names)?,
            sealed_credentials: row.sealed_credentials,
            former_until: row.former_until,
            state: row
                .disabled_at
                .map_or(EndpointState::Enabled, |at| EndpointState::Disabled {
                    reason,
                    at,
                }),
            streak: streak.map(|(first, last)| FailureStreak {
                first,
                last,
                failures: row.failures.unsigned_abs(),
            }),
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.version,
        })
    }
}

fn texts(json: &Value) -> Result<Vec<String>, StoreError> {
    let list = json.as_array();
    let texts = list.and_then(|list| list.iter().map(|text| text.as_str().map(str::to_owned)).collect());
    texts.ok_or_else(|| {
        StoreError::Other("a list of a webhook endpoint holds something else than texts".into())
    })
}

fn changes(endpoint: &WebhookEndpoint) -> Result<ActiveModel, StoreError> {
    let rate = endpoint.rate_limit.map(i32::try_from).transpose();
    let reason = endpoint.state.disabled_reason();
    Ok(ActiveModel {
        url: Set(endpoint.url.as_str().to_owned()),
        description: Set(endpoint.description.clone()),
        event_types: Set(endpoint.filter.texts().into()),
        rate_limit: Set(rate.map_err(|error| StoreError::Other(error.to_string()))?),
        ordered: Set(endpoint.ordered),
        signature: Set(endpoint.signature.as_str().to_owned()),
        public_key: Set(endpoint.public_key.clone()),
        header_names: Set(endpoint.header_names.clone().into()),
        sealed_credentials: Set(endpoint.sealed_credentials.clone()),
        former_until: Set(endpoint.former_until),
        enabled: Set(endpoint.state.is_enabled()),
        disabled_reason: Set(reason.map(|reason| reason.as_str().to_owned())),
        disabled_at: Set(endpoint.state.disabled_at()),
        updated_at: Set(endpoint.updated_at),
        version: Set(endpoint.version),
        ..failures(endpoint.streak)
    })
}

/// The columns of the failures since the last success.
fn failures(streak: Option<FailureStreak>) -> ActiveModel {
    let failures = streak.map_or(0, |streak| i32::try_from(streak.failures).unwrap_or(i32::MAX));
    ActiveModel {
        failing_since: Set(streak.map(|streak| streak.first)),
        last_failure_at: Set(streak.map(|streak| streak.last)),
        failures: Set(failures),
        ..Default::default()
    }
}
