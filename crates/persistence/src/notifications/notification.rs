use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _, Condition, QueryResult};
use serde_json::Value;
use tenantry_domain::kernel::{NotificationId, Page, PageRequest, StoreError, Time, UserId};
use tenantry_domain::notifications::{DueBefore, Notification, Notifications, NotifyingEvents, Rhythm};
use uuid::Uuid;

use crate::kernel::error::column;
use crate::kernel::store::{PgStore, exactly_one, unknown};
use crate::kernel::tx::Lock;

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "notifications")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub user_id: Uuid,
        pub kind: String,
        pub event_id: Uuid,
        pub occurred_at: DateTimeUtc,
        pub actor_kind: String,
        pub actor_id: Option<Uuid>,
        pub entity: String,
        pub entity_id: Option<Uuid>,
        pub parts: Json,
        pub in_app: bool,
        pub mail: Option<String>,
        pub read_at: Option<DateTimeUtc>,
    }

    crate::tenant_entity!(Entity, Model, ActiveModel, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

/// `$2` the user, `$3` how many the list keeps. Those that wait for a digest only leave the list.
const TRIM: &str = "\
WITH beyond AS (SELECT n.id FROM notifications n WHERE n.tenant_id = $1 AND n.user_id = $2 AND n.in_app \
ORDER BY n.created_at DESC, n.id DESC OFFSET $3), \
hidden AS (UPDATE notifications h SET in_app = false FROM beyond WHERE h.tenant_id = $1 AND h.id = beyond.id \
AND h.mail IS NOT NULL RETURNING h.id), \
gone AS (DELETE FROM notifications g USING beyond WHERE g.tenant_id = $1 AND g.id = beyond.id AND g.mail IS NULL RETURNING g.id) \
SELECT count(*) AS deleted FROM gone";

/// `$2` before when, `$3` how many.
const DELETE_BEFORE: &str = "\
WITH outdated AS (SELECT n.id FROM notifications n WHERE n.tenant_id = $1 AND n.created_at < $2 \
ORDER BY n.created_at, n.id LIMIT $3), \
gone AS (DELETE FROM notifications g USING outdated WHERE g.tenant_id = $1 AND g.id = outdated.id RETURNING g.id) \
SELECT count(*) AS deleted FROM gone";

/// `$2` and `$3` when the latest daily and weekly digests were due, `$4` after which user, `$5` how many. Each user is one step in the index
/// of what waits, however many notifications wait.
const USERS_DUE: &str = "\
WITH RECURSIVE due AS (SELECT $4::uuid AS user_id, 0::bigint AS step UNION ALL SELECT least(\
(SELECT d.user_id FROM notifications d WHERE d.tenant_id = $1 AND d.mail = 'daily' AND d.user_id > due.user_id \
AND d.created_at < $2 ORDER BY d.user_id LIMIT 1), \
(SELECT w.user_id FROM notifications w WHERE w.tenant_id = $1 AND w.mail = 'weekly' AND w.user_id > due.user_id \
AND w.created_at < $3 ORDER BY w.user_id LIMIT 1)), due.step + 1 \
FROM due WHERE due.user_id IS NOT NULL AND due.step < $5) \
SELECT found.user_id FROM due found WHERE found.step > 0 AND found.user_id IS NOT NULL ORDER BY found.step";

#[async_trait]
impl Notifications for PgStore {
    async fn position_for_update(&mut self) -> Result<Option<i64>, StoreError> {
        self.notified_until().await
    }

    async fn has_notifying(
        &mut self,
        range: (i64, i64),
        events: &[NotifyingEvents],
    ) -> Result<bool, StoreError> {
        self.has_events_that_notify(range, events).await
    }

    async fn begin_at(&mut self, position: i64, now: Time) -> Result<(), StoreError> {
        self.begin_notifying(position, now).await
    }

    async fn move_to(&mut self, position: i64) -> Result<(), StoreError> {
        self.notify_until(position).await
    }

    async fn add(&mut self, notification: &Notification) -> Result<bool, StoreError> {
        let row = ActiveModel {
            id: Set(notification.id.uuid()),
            created_at: Set(notification.created_at),
            user_id: Set(notification.user_id.uuid()),
            kind: Set(notification.kind.clone()),
            event_id: Set(notification.event_id.uuid()),
            occurred_at: Set(notification.occurred_at),
            actor_kind: Set(notification.actor_kind.clone()),
            actor_id: Set(notification.actor_id),
            entity: Set(notification.entity.clone()),
            entity_id: Set(notification.entity_id),
            parts: Set(Value::Object(notification.parts.clone())),
            in_app: Set(notification.in_app),
            mail: Set(notification.mail.map(|rhythm| rhythm.as_str().to_owned())),
            read_at: Set(notification.read_at),
            ..Default::default()
        };
        self.tx.insert_unless_there(row).await
    }

    async fn trim(&mut self, user: UserId, most: u32) -> Result<u64, StoreError> {
        let arguments = [user.uuid().into(), i64::from(most).into()];
        deleted(self.tx.fetch_fixed(TRIM, arguments).await?)
    }

    async fn list(
        &mut self,
        user: UserId,
        (kinds, unread): (&[&'static str], Option<bool>),
        page: PageRequest,
    ) -> Result<Page<Notification>, StoreError> {
        let mut find = self.tx.find::<Entity>().filter(seen_by(user, kinds));
        find = match unread {
            None => find,
            Some(true) => find.filter(Column::ReadAt.is_null()),
            Some(false) => find.filter(Column::ReadAt.is_not_null()),
        };
        find.newest(page).await?.try_map(Notification::try_from)
    }

    async fn count_unread(&mut self, user: UserId, kinds: &[&'static str]) -> Result<u64, StoreError> {
        let find = self.tx.find::<Entity>().filter(seen_by(user, kinds));
        find.filter(Column::ReadAt.is_null()).count().await
    }

    async fn find_for_update(
        &mut self,
        user: UserId,
        id: NotificationId,
        kinds: &[&'static str],
    ) -> Result<Option<Notification>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Id.eq(id.uuid()));
        let find = find.filter(seen_by(user, kinds));
        let row = find.lock(Lock::Update).one().await?;
        row.map(Notification::try_from).transpose()
    }

    async fn set_read(&mut self, id: NotificationId, read_at: Option<Time>) -> Result<(), StoreError> {
        let changed = ActiveModel {
            read_at: Set(read_at),
            ..Default::default()
        };
        let update = self.tx.update::<Entity>().set(changed);
        exactly_one(update.filter(Column::Id.eq(id.uuid())).run().await?)
    }

    async fn read_all(
        &mut self,
        user: UserId,
        kinds: &[&'static str],
        until: Time,
    ) -> Result<u64, StoreError> {
        let read = ActiveModel {
            read_at: Set(Some(until)),
            ..Default::default()
        };
        let update = self.tx.update::<Entity>().set(read).filter(seen_by(user, kinds));
        let unread = Condition::all()
            .add(Column::ReadAt.is_null())
            .add(Column::CreatedAt.lte(until));
        update.filter(unread).run().await
    }

    async fn defer(&mut self, user: UserId, ids: &[NotificationId]) -> Result<(), StoreError> {
        let deferred = ActiveModel {
            mail: Set(Some(Rhythm::Daily.as_str().to_owned())),
            ..Default::default()
        };
        let update = self
            .tx
            .update::<Entity>()
            .set(deferred)
            .filter(of_user(user, ids));
        update.filter(Column::ReadAt.is_null()).run().await.map(|_| ())
    }

    async fn delete_hidden(&mut self, user: UserId, ids: &[NotificationId]) -> Result<(), StoreError> {
        let hidden = Condition::all()
            .add(Column::InApp.eq(false))
            .add(Column::Mail.is_null());
        let delete = self.tx.delete::<Entity>().filter(of_user(user, ids));
        delete.filter(hidden).run().await.map(|_| ())
    }

    async fn find_of(
        &mut self,
        user: UserId,
        ids: &[NotificationId],
    ) -> Result<Vec<Notification>, StoreError> {
        let find = self.tx.find::<Entity>().filter(of_user(user, ids));
        let find = find.order_by_desc(Column::CreatedAt).order_by_desc(Column::Id);
        let rows = find.all().await?;
        rows.into_iter().map(Notification::try_from).collect()
    }

    async fn latest_digest(&mut self, rhythm: Rhythm) -> Result<Option<String>, StoreError> {
        self.digest_of(rhythm).await
    }

    async fn store_digest(&mut self, rhythm: Rhythm, date: &str) -> Result<(), StoreError> {
        self.note_digest(rhythm, date).await
    }

    async fn users_due(
        &mut self,
        after: Option<UserId>,
        before: DueBefore,
        limit: u32,
    ) -> Result<Vec<UserId>, StoreError> {
        let after = after.map_or(Uuid::nil(), UserId::uuid);
        let arguments = [
            before.daily.into(),
            before.weekly.into(),
            after.into(),
            i64::from(limit).into(),
        ];
        let rows = self.tx.fetch_all_fixed(USERS_DUE, arguments).await?;
        let user = |row| column::<Uuid>(row, "user_id").map(UserId::from);
        rows.iter().map(user).collect()
    }

    async fn take_due(&mut self, user: UserId, before: DueBefore) -> Result<Vec<Notification>, StoreError> {
        let due = || {
            let of = |rhythm: Rhythm, due| {
                let waiting = Condition::all().add(Column::Mail.eq(rhythm.as_str()));
                waiting.add(Column::CreatedAt.lt(due))
            };
            let any = Condition::any()
                .add(of(Rhythm::Daily, before.daily))
                .add(of(Rhythm::Weekly, before.weekly));
            Condition::all().add(Column::UserId.eq(user.uuid())).add(any)
        };
        let find = self.tx.find::<Entity>().filter(due());
        let find = find.order_by_desc(Column::CreatedAt).order_by_desc(Column::Id);
        let rows = find.all().await?;
        let taken = ActiveModel {
            mail: Set(None),
            ..Default::default()
        };
        self.tx.update::<Entity>().set(taken).filter(due()).run().await?;
        rows.into_iter().map(Notification::try_from).collect()
    }

    async fn is_waiting(&mut self, rhythm: Rhythm) -> Result<bool, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Mail.eq(rhythm.as_str()));
        Ok(find.one().await?.is_some())
    }

    async fn delete_before(&mut self, before: Time, limit: u32) -> Result<u64, StoreError> {
        let arguments = [before.into(), i64::from(limit).into()];
        deleted(self.tx.fetch_fixed(DELETE_BEFORE, arguments).await?)
    }
}

/// Those that are in the list of a user who may read these types.
fn seen_by(user: UserId, kinds: &[&'static str]) -> Condition {
    Condition::all()
        .add(Column::UserId.eq(user.uuid()))
        .add(Column::InApp.eq(true))
        .add(Column::Kind.is_in(kinds.iter().copied()))
}

/// Those of these ids that are of a user.
fn of_user(user: UserId, ids: &[NotificationId]) -> Condition {
    Condition::all()
        .add(Column::Id.is_in(ids.iter().map(|id| id.uuid())))
        .add(Column::UserId.eq(user.uuid()))
}

fn deleted(row: Option<QueryResult>) -> Result<u64, StoreError> {
    let count = row.map(|row| column::<i64>(&row, "deleted")).transpose()?;
    Ok(count.unwrap_or_default().unsigned_abs())
}

impl TryFrom<Model> for Notification {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let rhythm = |text: String| Rhythm::parse(&text).ok_or_else(|| unknown("notifications.mail", &text));
        Ok(Self {
            id: row.id.into(),
            user_id: row.user_id.into(),
            kind: row.kind,
            event_id: row.event_id.into(),
            occurred_at: row.occurred_at,
            actor_kind: row.actor_kind,
            actor_id: row.actor_id,
            entity: row.entity,
            entity_id: row.entity_id,
            parts: match row.parts {
                Value::Object(parts) => parts,
                _ => serde_json::Map::new(),
            },
            in_app: row.in_app,
            mail: row.mail.map(rhythm).transpose()?,
            read_at: row.read_at,
            created_at: row.created_at,
        })
    }
}
