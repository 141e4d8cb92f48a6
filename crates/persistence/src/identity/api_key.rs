use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _, Condition, QueryResult};
use serde_json::Value;
use tenantry_domain::identity::{AllowedNetwork, ApiKey, ApiKeys, ExpiryStage, FormerSecret};
use tenantry_domain::kernel::{
    ApiKeyId, Change, Page, PageRequest, PermissionSet, Position, StoreError, Time, UserId,
};

use crate::kernel::error::column;
use crate::kernel::store::{PgStore, exactly_one, unknown};
use crate::kernel::tx::{Find, Lock};

pub(crate) mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "api_keys")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub name: String,
        pub user_id: Uuid,
        pub service_account: bool,
        pub scopes: Json,
        pub allowed_networks: Json,
        pub secret_hash: Vec<u8>,
        pub former_hash: Option<Vec<u8>>,
        pub former_until: Option<DateTimeUtc>,
        pub expires_at: DateTimeUtc,
        pub notified: String,
        pub last_used_at: Option<DateTimeUtc>,
        pub revoked_at: Option<DateTimeUtc>,
        pub updated_at: DateTimeUtc,
        pub version: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

#[async_trait]
impl ApiKeys for PgStore {
    async fn find(&mut self, id: ApiKeyId) -> Result<Option<ApiKey>, StoreError> {
        one(self.valid_keys().filter(Column::Id.eq(id.uuid()))).await
    }

    async fn find_for_update(&mut self, id: ApiKeyId) -> Result<Option<ApiKey>, StoreError> {
        let find = self.valid_keys().filter(Column::Id.eq(id.uuid()));
        one(find.lock(Lock::Update)).await
    }

    async fn list(&mut self, page: PageRequest) -> Result<Page<ApiKey>, StoreError> {
        let position = |row: &Model| Position {
            created_at: row.created_at,
            id: row.id,
        };
        let find = self.valid_keys();
        let page = find.page((Column::CreatedAt, Column::Id), page, position).await?;
        page.try_map(ApiKey::try_from)
    }

    async fn list_of(&mut self, creator: UserId) -> Result<Vec<ApiKey>, StoreError> {
        let keys = self.valid_keys().filter(Column::UserId.eq(creator.uuid()));
        // One order everywhere, so that two servers cannot deadlock.
        let rows = keys.order_by_asc(Column::ExpiresAt).order_by_asc(Column::Id);
        let rows = rows.lock(Lock::Update).all().await?;
        rows.into_iter().map(ApiKey::try_from).collect()
    }

    async fn count_of(&mut self, creator: UserId, now: Time) -> Result<u64, StoreError> {
        let keys = self.valid_keys().filter(Column::UserId.eq(creator.uuid()));
        keys.filter(Column::ExpiresAt.gt(now)).count().await
    }

    async fn count(&mut self) -> Result<u64, StoreError> {
        self.valid_keys().count().await
    }

    async fn insert(&mut self, key: &ApiKey) -> Result<(), StoreError> {
        self.note(key.id);
        let row = ActiveModel {
            id: Set(key.id.uuid()),
            created_at: Set(key.created_at),
            user_id: Set(key.creator.uuid()),
            service_account: Set(key.service_account),
            ..changes(key)
        };
        self.tx.insert(row).await
    }

    async fn update(&mut self, key: &ApiKey) -> Result<(), StoreError> {
        self.note(key.id);
        let update = self.tx.update::<Entity>().set(changes(key));
        exactly_one(update.filter(Column::Id.eq(key.id.uuid())).run().await?)
    }

    async fn ending(&mut self, by: Time) -> Result<Vec<ApiKey>, StoreError> {
        let find = self.valid_keys().filter(Column::ExpiresAt.lte(by));
        let find = find.filter(Column::Notified.ne(ExpiryStage::Over.as_str()));
        // One order everywhere, so that two servers cannot deadlock.
        let rows = find.order_by_asc(Column::ExpiresAt).order_by_asc(Column::Id);
        let rows = rows.limit(ApiKey::MOST).lock(Lock::Update).all().await?;
        rows.into_iter().map(ApiKey::try_from).collect()
    }

    async fn record_notice(&mut self, id: ApiKeyId, notified: ExpiryStage) -> Result<(), StoreError> {
        let told = ActiveModel {
            notified: Set(notified.as_str().to_owned()),
            ..Default::default()
        };
        let update = self.tx.update::<Entity>().set(told);
        exactly_one(update.filter(Column::Id.eq(id.uuid())).run().await?)
    }

    async fn record_use(&mut self, id: ApiKeyId, at: Time) -> Result<(), StoreError> {
        let used = ActiveModel {
            last_used_at: Set(Some(at)),
            ..Default::default()
        };
        let earlier = Condition::any()
            .add(Column::LastUsedAt.is_null())
            .add(Column::LastUsedAt.lt(at));
        let update = self.tx.update::<Entity>().set(used);
        // No row when another server has stored a later time, or the key is gone.
        update
            .filter(Column::Id.eq(id.uuid()))
            .filter(earlier)
            .run()
            .await?;
        Ok(())
    }

    async fn keep_latest_revoked(&mut self, most: u64) -> Result<(), StoreError> {
        let revoked = self.tx.find::<Entity>().filter(Column::RevokedAt.is_not_null());
        let latest = revoked
            .order_by_desc(Column::RevokedAt)
            .limit(most + 1)
            .all()
            .await?;
        let Ok(most) = usize::try_from(most) else {
            return Ok(());
        };
        if let Some(oldest) = latest.get(most) {
            let delete = self.tx.delete::<Entity>();
            delete
                .filter(Column::RevokedAt.lte(oldest.revoked_at))
                .run()
                .await?;
        }
        Ok(())
    }

    async fn delete_revoked(&mut self, before: Time) -> Result<u64, StoreError> {
        let delete = self.tx.delete::<Entity>();
        delete.filter(Column::RevokedAt.lt(before)).run().await
    }
}

impl PgStore {
    fn valid_keys(&mut self) -> Find<'_, Entity> {
        self.tx.find::<Entity>().filter(Column::RevokedAt.is_null())
    }

    fn note(&mut self, key: ApiKeyId) {
        self.changes.note(Change::ApiKey(self.scope.tenant(), key));
    }
}

async fn one(find: Find<'_, Entity>) -> Result<Option<ApiKey>, StoreError> {
    find.one().await?.map(ApiKey::try_from).transpose()
}

/// The key in a row that has all columns of [`Entity`] under their names, but for its id.
pub(crate) fn of_row(row: &QueryResult, tenant: uuid::Uuid, id: ApiKeyId) -> Result<ApiKey, StoreError> {
    ApiKey::try_from(Model {
        tenant_id: tenant,
        id: id.uuid(),
        created_at: column(row, "key_created_at")?,
        name: column(row, "name")?,
        user_id: column(row, "user_id")?,
        service_account: column(row, "service_account")?,
        scopes: column(row, "scopes")?,
        allowed_networks: column(row, "allowed_networks")?,
        secret_hash: column(row, "secret_hash")?,
        former_hash: column(row, "former_hash")?,
        former_until: column(row, "former_until")?,
        expires_at: column(row, "expires_at")?,
        notified: column(row, "notified")?,
        last_used_at: column(row, "last_used_at")?,
        revoked_at: column(row, "revoked_at")?,
        updated_at: column(row, "updated_at")?,
        version: column(row, "version")?,
    })
}

impl TryFrom<Model> for ApiKey {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let former = row.former_hash.map(sha256).transpose()?.zip(row.former_until);
        let network = |text: &str| {
            AllowedNetwork::parse(text).ok_or_else(|| unknown("api_keys.allowed_networks", text))
        };
        let networks = texts(&row.allowed_networks)?;
        let scopes: PermissionSet = texts(&row.scopes)?.into_iter().collect();
        Ok(Self {
            id: row.id.into(),
            name: row.name,
            creator: row.user_id.into(),
            service_account: row.service_account,
            scopes,
            allowed_networks: networks.into_iter().map(network).collect::<Result<_, _>>()?,
            secret_hash: sha256(row.secret_hash)?,
            former: former.map(|(hash, until)| FormerSecret { hash, until }),
            expires_at: row.expires_at,
            notified: ExpiryStage::parse(&row.notified)
                .ok_or_else(|| unknown("api_keys.notified", &row.notified))?,
            last_used_at: row.last_used_at,
            revoked_at: row.revoked_at,
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.version,
        })
    }
}

fn texts(json: &Value) -> Result<Vec<&str>, StoreError> {
    let texts = json
        .as_array()
        .map(|list| list.iter().map(Value::as_str).collect());
    texts
        .flatten()
        .ok_or_else(|| StoreError::Other("a list of an API key holds something else than texts".into()))
}

fn changes(key: &ApiKey) -> ActiveModel {
    let networks: Vec<_> = key.allowed_networks.iter().map(ToString::to_string).collect();
    ActiveModel {
        name: Set(key.name.clone()),
        scopes: Set(key.scopes.names().into()),
        allowed_networks: Set(networks.into()),
        secret_hash: Set(key.secret_hash.to_vec()),
        former_hash: Set(key.former.map(|former| former.hash.to_vec())),
        former_until: Set(key.former.map(|former| former.until)),
        expires_at: Set(key.expires_at),
        notified: Set(key.notified.as_str().to_owned()),
        revoked_at: Set(key.revoked_at),
        updated_at: Set(key.updated_at),
        version: Set(key.version),
        ..Default::default()
    }
}

fn sha256(bytes: Vec<u8>) -> Result<[u8; 32], StoreError> {
    let length = bytes.len();
    bytes
        .try_into()
        .map_err(|_| StoreError::Other(format!("a hash of {length} bytes instead of 32")))
}
