use async_trait::async_trait;
use sea_orm::ActiveValue::Set;
use sea_orm::ColumnTrait as _;
use sea_orm::sea_query::SimpleExpr;
use tenantry_domain::archive::{Export, ExportStatus, Exports};
use tenantry_domain::kernel::{ExportId, Page, PageRequest, StoreError, Time, UserId};

use crate::kernel::store::{PgStore, unknown};

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "tenant_exports")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub requested_by: Option<Uuid>,
        pub person_id: Option<Uuid>,
        pub status: String,
        pub rows_written: i64,
        pub bytes: Option<i64>,
        pub failure: Option<String>,
        pub finished_at: Option<DateTimeUtc>,
        pub expires_at: Option<DateTimeUtc>,
        pub open_key: Option<String>,
    }

    crate::tenant_entity!(Entity, Model, ActiveModel, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

/// What a unique key finds in the one export that is under way.
const OPEN: &str = "open";

/// Maximum number of exports that are expired at a time.
const OVERDUE: u64 = 200;

#[async_trait]
impl Exports for PgStore {
    async fn insert(&mut self, export: &Export) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(export.id.uuid()),
            created_at: Set(export.created_at),
            requested_by: Set(export.requested_by.map(Into::into)),
            person_id: Set(export.person.map(Into::into)),
            ..changes(export)?
        };
        self.tx.insert(row).await
    }

    async fn find(&mut self, id: ExportId) -> Result<Option<Export>, StoreError> {
        let row = self.tx.get::<Entity>(id.uuid()).await?;
        row.map(Export::try_from).transpose()
    }

    async fn list(&mut self, person: Option<UserId>, page: PageRequest) -> Result<Page<Export>, StoreError> {
        let find = self.tx.find::<Entity>().filter(of(person));
        let page = find.newest(page).await?;
        page.try_map(Export::try_from)
    }

    async fn count_kept(&mut self, person: Option<UserId>) -> Result<u64, StoreError> {
        let kept =
            [ExportStatus::Queued, ExportStatus::Running, ExportStatus::Ready].map(ExportStatus::as_str);
        self.tx
            .find::<Entity>()
            .filter(Column::Status.is_in(kept))
            .filter(of(person))
            .count()
            .await
    }

    async fn overdue(&mut self, now: Time) -> Result<Vec<Export>, StoreError> {
        let find = self
            .tx
            .find::<Entity>()
            .filter(Column::Status.eq(ExportStatus::Ready.as_str()));
        let rows = find
            .filter(Column::ExpiresAt.lte(now))
            .limit(OVERDUE)
            .all()
            .await?;
        rows.into_iter().map(Export::try_from).collect()
    }

    async fn update(&mut self, export: &Export) -> Result<bool, StoreError> {
        let before = export.states_before().iter().map(|status| status.as_str());
        let update = self.tx.update::<Entity>().set(changes(export)?);
        let update = update
            .filter(Column::Id.eq(export.id.uuid()))
            .filter(Column::Status.is_in(before));
        Ok(update.run().await? == 1)
    }
}

fn changes(export: &Export) -> Result<ActiveModel, StoreError> {
    Ok(ActiveModel {
        status: Set(export.status.as_str().to_owned()),
        rows_written: Set(signed(export.rows_written)?),
        bytes: Set(export.bytes.map(signed).transpose()?),
        failure: Set(export.failure.clone()),
        finished_at: Set(export.finished_at),
        expires_at: Set(export.expires_at),
        open_key: Set(export.is_open().then(|| open_key(export.person))),
        ..Default::default()
    })
}

/// The key of an export that is under way: of each there is one at a time.
fn open_key(person: Option<UserId>) -> String {
    person.map_or_else(|| OPEN.to_owned(), |person| person.to_string())
}

fn of(person: Option<UserId>) -> SimpleExpr {
    match person {
        Some(person) => Column::PersonId.eq(person.uuid()),
        None => Column::PersonId.is_null(),
    }
}

fn signed(count: u64) -> Result<i64, StoreError> {
    i64::try_from(count).map_err(|error| StoreError::Other(error.to_string()))
}

impl TryFrom<Model> for Export {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.into(),
            created_at: row.created_at,
            requested_by: row.requested_by.map(Into::into),
            person: row.person_id.map(Into::into),
            status: ExportStatus::parse(&row.status)
                .ok_or_else(|| unknown("tenant_exports.status", &row.status))?,
            rows_written: row.rows_written.unsigned_abs(),
            bytes: row.bytes.map(i64::unsigned_abs),
            failure: row.failure,
            finished_at: row.finished_at,
            expires_at: row.expires_at,
        })
    }
}
