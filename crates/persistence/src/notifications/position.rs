//! The number in the feed up to which events have notified, and the dates of the latest digests.

use chrono::NaiveDate;
use sea_orm::ActiveValue::Set;
use tenantry_domain::kernel::{StoreError, Time};
use tenantry_domain::notifications::{NotifyingEvents, Rhythm};

use crate::kernel::error::{column, from_json};
use crate::kernel::store::{PgStore, exactly_one, unknown};
use crate::kernel::tx::Lock;

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "notification_positions")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub position: i64,
        pub daily_digest: Option<Date>,
        pub weekly_digest: Option<Date>,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Entity};

/// `$2` after which position, `$3` through which, `$4` the events that notify, as a list in JSON.
const NOTIFIES: &str = "\
SELECT EXISTS (SELECT 1 FROM events e WHERE e.tenant_id = $1 AND e.position > $2 AND e.position <= $3 AND EXISTS (\
SELECT 1 FROM jsonb_to_recordset($4::text::jsonb) AS f (kind text, field text, is_change boolean) WHERE f.kind = e.kind \
AND (f.field IS NULL OR e.data -> 'object' ->> f.field IS NOT NULL) \
AND (NOT f.is_change OR e.data -> 'previous_attributes' -> f.field IS NOT NULL))) AS notifies";

impl PgStore {
    /// The number, locked.
    pub(super) async fn notified_until(&mut self) -> Result<Option<i64>, StoreError> {
        let row = self.tx.find::<Entity>().lock(Lock::Update).one().await?;
        Ok(row.map(|row| row.position))
    }

    /// Stores the first number unless there is one. A row that is there is not locked, so the publisher does not wait for a job.
    pub(super) async fn begin_notifying(&mut self, position: i64, now: Time) -> Result<(), StoreError> {
        let row = ActiveModel {
            created_at: Set(now),
            position: Set(position),
            ..Default::default()
        };
        self.tx.insert_unless_there(row).await.map(|_| ())
    }

    /// Whether events of a range notify. Their data stay in the database.
    pub(super) async fn has_events_that_notify(
        &mut self,
        (after, through): (i64, i64),
        events: &[NotifyingEvents],
    ) -> Result<bool, StoreError> {
        let events = serde_json::to_string(events).map_err(from_json)?;
        let arguments = [after.into(), through.into(), events.into()];
        let row = self.tx.fetch_fixed(NOTIFIES, arguments).await?;
        let found = row.map(|row| column(&row, "notifies")).transpose()?;
        Ok(found.unwrap_or_default())
    }

    /// The date of the latest digest.
    pub(super) async fn digest_of(&mut self, rhythm: Rhythm) -> Result<Option<String>, StoreError> {
        let row = self.tx.find::<Entity>().one().await?;
        let date = row.and_then(|row| match rhythm {
            Rhythm::Daily => row.daily_digest,
            Rhythm::Weekly => row.weekly_digest,
        });
        Ok(date.map(|date| date.to_string()))
    }

    /// Stores the date of the latest digest.
    pub(super) async fn note_digest(&mut self, rhythm: Rhythm, date: &str) -> Result<(), StoreError> {
        let date: NaiveDate = date.parse().map_err(|_| unknown("a date of a digest", date))?;
        let mut mailed = ActiveModel::default();
        match rhythm {
            Rhythm::Daily => mailed.daily_digest = Set(Some(date)),
            Rhythm::Weekly => mailed.weekly_digest = Set(Some(date)),
        }
        exactly_one(self.tx.update::<Entity>().set(mailed).run().await?)
    }

    /// Moves the number.
    pub(super) async fn notify_until(&mut self, position: i64) -> Result<(), StoreError> {
        let moved = ActiveModel {
            position: Set(position),
            ..Default::default()
        };
        exactly_one(self.tx.update::<Entity>().set(moved).run().await?)
    }
}
