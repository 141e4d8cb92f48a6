use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _, Condition};
use tenantry_domain::kernel::{KeptAnswer, Role, StoreError, Time};
use tenantry_domain::operations::{IdempotencyKeys, KeptRequest, RequestKey};

use crate::kernel::advisory;
use crate::kernel::error::{from_json, from_orm};
use crate::kernel::store::{PgStore, unknown};

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "idempotency_keys")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub user_id: Uuid,
        pub route: String,
        pub key: String,
        pub fingerprint: Vec<u8>,
        pub role: String,
        pub status: i32,
        pub headers: Json,
        pub sealed_body: Vec<u8>,
        pub expires_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

#[async_trait]
impl IdempotencyKeys for PgStore {
    async fn lock(&mut self, key: &RequestKey) -> Result<bool, StoreError> {
        let arguments = [
            key.user.uuid().into(),
            key.route.clone().into(),
            key.key.clone().into(),
        ];
        match self.tx.fetch_fixed(advisory::KEYED_REQUEST, arguments).await? {
            Some(row) => row.try_get("", "locked").map_err(from_orm),
            None => Err(StoreError::Other("a lock answered nothing".into())),
        }
    }

    async fn find(&mut self, key: &RequestKey) -> Result<Option<KeptRequest>, StoreError> {
        let find = self.tx.find::<Entity>().filter(is(key));
        find.one().await?.map(KeptRequest::try_from).transpose()
    }

    async fn insert(&mut self, request: &KeptRequest) -> Result<bool, StoreError> {
        let row = ActiveModel {
            created_at: Set(request.created_at),
            user_id: Set(request.key.user.uuid()),
            route: Set(request.key.route.clone()),
            key: Set(request.key.key.clone()),
            fingerprint: Set(request.fingerprint.to_vec()),
            role: Set(request.role.as_str().to_owned()),
            status: Set(request.answer.status.into()),
            headers: Set(serde_json::to_value(&request.answer.headers).map_err(from_json)?),
            sealed_body: Set(request.answer.body.clone()),
            expires_at: Set(request.expires_at),
            ..Default::default()
        };
        self.tx.insert_unless_there(row).await
    }

    async fn delete(&mut self, key: &RequestKey) -> Result<(), StoreError> {
        // Whether it was there or was swept meanwhile comes to the same.
        self.tx.delete::<Entity>().filter(is(key)).run().await?;
        Ok(())
    }

    async fn delete_expired(&mut self, now: Time) -> Result<u64, StoreError> {
        let delete = self.tx.delete::<Entity>();
        delete.filter(Column::ExpiresAt.lte(now)).run().await
    }
}

fn is(key: &RequestKey) -> Condition {
    Condition::all()
        .add(Column::UserId.eq(key.user.uuid()))
        .add(Column::Route.eq(&key.route))
        .add(Column::Key.eq(&key.key))
}

impl TryFrom<Model> for KeptRequest {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let status = u16::try_from(row.status);
        let fingerprint = row.fingerprint.try_into();
        Ok(Self {
            key: RequestKey {
                user: row.user_id.into(),
                route: row.route,
                key: row.key,
            },
            fingerprint: fingerprint.map_err(|_| StoreError::Other("a fingerprint is no SHA-256".into()))?,
            role: Role::parse(&row.role).ok_or_else(|| unknown("idempotency_keys.role", &row.role))?,
            answer: KeptAnswer {
                status: status.map_err(|_| StoreError::Other("a status is no HTTP status".into()))?,
                headers: serde_json::from_value(row.headers).map_err(from_json)?,
                body: row.sealed_body,
            },
            created_at: row.created_at,
            expires_at: row.expires_at,
        })
    }
}
