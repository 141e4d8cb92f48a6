use async_trait::async_trait;
use sea_orm::ColumnTrait as _;
use tenantry_domain::events::{Event, EventFeed, FeedEnds, UnpublishedEvents};
use tenantry_domain::kernel::{StoreError, SystemScope, TenantId, Time, UserId};
use tenantry_domain::store::Mode;
use uuid::Uuid;

use crate::Pool;
use crate::kernel::advisory;
use crate::kernel::error::column;
use crate::kernel::store::PgStore;
use crate::kernel::tx::PlatformTx;

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "events")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub kind: String,
        pub actor_kind: String,
        pub actor_id: Option<Uuid>,
        pub entity: String,
        pub entity_id: Option<Uuid>,
        pub trace_parent: Option<String>,
        pub data: Json,
        pub position: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{Column, Entity, Model};

/// `$2` how many. It runs in a statement after the one that has locked, so that it sees what was numbered until then, and everything that
/// has committed: whatever an event of the outbox depends on is in the outbox or the feed as well.
const PUBLISH: &str = "\
WITH due AS (SELECT o.id FROM event_outbox o WHERE o.tenant_id = $1 ORDER BY o.ticket LIMIT $2), \
moved AS (DELETE FROM event_outbox o USING due WHERE o.tenant_id = $1 AND o.id = due.id RETURNING o.*), \
numbered AS (INSERT INTO events (tenant_id, id, created_at, kind, actor_kind, actor_id, entity, entity_id, trace_parent, data, position) \
SELECT $1, m.id, m.created_at, m.kind, m.actor_kind, m.actor_id, m.entity, m.entity_id, m.trace_parent, m.data, \
 coalesce((SELECT max(e.position) FROM events e WHERE e.tenant_id = $1), 0) + row_number() OVER (ORDER BY m.ticket) \
FROM moved m RETURNING id) \
SELECT count(*) AS published FROM numbered";

/// Notes what the log of all tenants and the export have to follow. The row has few columns and is changed by one publisher at a time.
const NOTE: &str = "\
INSERT INTO event_progress (\"tenant_id\", created_at, published) \
SELECT $1, now(), max(e.position) FROM events e WHERE e.tenant_id = $1 HAVING max(e.position) IS NOT NULL \
ON CONFLICT (tenant_id) DO UPDATE SET published = EXCLUDED.published WHERE event_progress.tenant_id = $1 RETURNING id";

const ENDS: &str = "\
SELECT coalesce((SELECT min(o.position) FROM events o WHERE o.tenant_id = $1), 0) AS oldest, \
 coalesce((SELECT max(n.position) FROM events n WHERE n.tenant_id = $1), 0) AS newest";

/// Of an event that was erased before nothing is left to find.
macro_rules! erase {
    ($table:literal, $range:literal) => {
        concat!(
            "WITH erased AS (UPDATE ",
            $table,
            " e SET data = jsonb_build_object('object', jsonb_strip_nulls(jsonb_build_object('id', e.entity_id)), 'erased', true) \
             WHERE e.tenant_id = $1",
            $range,
            " AND e.data -> 'erased' IS NULL AND (e.entity_id = $2 OR (e.created_at <= $4 AND EXISTS (SELECT 1 FROM \
             jsonb_array_elements_text($3::text::jsonb) AS a (address) WHERE strpos(lower(e.data::text), to_jsonb(a.address)::text) > 0))) \
             RETURNING e.id) SELECT count(*) AS erased FROM erased"
        )
    };
}

/// `$2` the person, `$3` addresses as a list in JSON, `$4` until when they were the person's.
const ERASE_UNPUBLISHED: &str = erase!("event_outbox", "");

/// `$5` behind which position, `$6` up to which one.
const ERASE_PUBLISHED: &str = erase!("events", " AND e.position > $5 AND e.position <= $6");

/// `$2` before when, `$3` how many. Events are deleted in the order of their positions, up to the first one that is kept. Only as many are looked
/// at as are deleted, however many are outdated.
const DELETE_BEFORE: &str = "\
WITH oldest AS (SELECT o.id, o.position, o.created_at FROM events o WHERE o.tenant_id = $1 ORDER BY o.position LIMIT $3), \
kept AS (SELECT least((SELECT min(f.position) FROM oldest f WHERE f.created_at >= $2), \
 (SELECT max(n.position) FROM events n WHERE n.tenant_id = $1)) AS first), \
gone AS (DELETE FROM events e USING oldest o, kept k WHERE e.tenant_id = $1 AND e.id = o.id AND o.position < k.first RETURNING e.position), \
counted AS (SELECT count(*) AS deleted, max(g.position) AS through FROM gone g), \
noted AS (UPDATE event_progress p SET deleted = greatest(p.deleted, c.through) FROM counted c \
 WHERE p.tenant_id = $1 AND c.deleted > 0 RETURNING p.id) \
SELECT c.deleted FROM counted c";

#[async_trait]
impl EventFeed for PgStore {
    async fn publish(&mut self, limit: u32) -> Result<u64, StoreError> {
        let locked = self.tx.fetch_fixed(advisory::PUBLISH_EVENTS, []).await?;
        let locked = locked.map(|row| column::<bool>(&row, "locked")).transpose()?;
        if locked != Some(true) {
            return Ok(0);
        }
        let arguments = [i64::from(limit).into()];
        let published = count(self.tx.fetch_fixed(PUBLISH, arguments).await?, "published")?;
        if published > 0 {
            self.tx.fetch_fixed(NOTE, []).await?;
        }
        Ok(published)
    }

    async fn ends(&mut self) -> Result<FeedEnds, StoreError> {
        let row = self.tx.fetch_fixed(ENDS, []).await?;
        let ends = row.map(|row| {
            Ok(FeedEnds {
                oldest: column(&row, "oldest")?,
                newest: column(&row, "newest")?,
            })
        });
        ends.transpose().map(Option::unwrap_or_default)
    }

    async fn between(
        &mut self,
        (after, through): (i64, i64),
        kinds: &[&'static str],
        limit: u32,
    ) -> Result<Vec<Event>, StoreError> {
        let mut find = self.tx.find::<Entity>();
        find = find.filter(Column::Position.gt(after));
        find = find.filter(Column::Position.lte(through));
        if !kinds.is_empty() {
            find = find.filter(Column::Kind.is_in(kinds.iter().copied()));
        }
        let find = find.order_by_asc(Column::Position).limit(limit.into());
        let rows = find.all().await?;
        Ok(rows.into_iter().map(Event::from).collect())
    }

    async fn erase_unpublished(
        &mut self,
        person: UserId,
        addresses: &[&str],
        before: Time,
    ) -> Result<u64, StoreError> {
        let addresses = serde_json::json!(addresses).to_string();
        let arguments = [person.uuid().into(), addresses.into(), before.into()];
        count(self.tx.fetch_fixed(ERASE_UNPUBLISHED, arguments).await?, "erased")
    }

    async fn erase_between(
        &mut self,
        (after, through): (i64, i64),
        person: UserId,
        (addresses, before): (&[&str], Time),
    ) -> Result<u64, StoreError> {
        let addresses = serde_json::json!(addresses).to_string();
        let arguments = [
            person.uuid().into(),
            addresses.into(),
            before.into(),
            after.into(),
            through.into(),
        ];
        count(self.tx.fetch_fixed(ERASE_PUBLISHED, arguments).await?, "erased")
    }

    async fn delete_before(&mut self, before: Time, limit: u32) -> Result<u64, StoreError> {
        let arguments = [before.into(), i64::from(limit).into()];
        count(self.tx.fetch_fixed(DELETE_BEFORE, arguments).await?, "deleted")
    }
}

fn count(row: Option<sea_orm::QueryResult>, name: &str) -> Result<u64, StoreError> {
    let count = row.map(|row| column::<i64>(&row, name)).transpose()?;
    Ok(count.unwrap_or_default().unsigned_abs())
}

impl From<Model> for Event {
    fn from(row: Model) -> Self {
        Self {
            id: row.id.into(),
            position: row.position,
            kind: row.kind,
            at: row.created_at,
            actor_kind: row.actor_kind,
            actor_id: row.actor_id,
            entity: row.entity,
            entity_id: row.entity_id,
            trace_parent: row.trace_parent,
            data: row.data,
        }
    }
}

/// Which tenants have events to publish, as the platform role. It sees nothing of the events.
#[derive(Debug, Clone)]
pub struct PgUnpublishedEvents {
    platform: Pool,
}

impl PgUnpublishedEvents {
    /// Over a pool of the platform role.
    pub fn new(platform: Pool) -> Self {
        Self { platform }
    }
}

/// `$1` after which tenant, `$2` how many. The outbox has few rows: an event stays in it for less than a second, and those of deleted
/// tenants until they are restored or purged. So each tenant is one step in the primary key, however many events wait in it.
const WAITING: &str = "\
WITH RECURSIVE waiting AS (\
(SELECT o.tenant_id FROM event_outbox o WHERE o.tenant_id > $1 ORDER BY o.tenant_id LIMIT 1) UNION ALL \
SELECT (SELECT o.tenant_id FROM event_outbox o WHERE o.tenant_id > w.tenant_id ORDER BY o.tenant_id LIMIT 1) \
FROM waiting w WHERE w.tenant_id IS NOT NULL) \
SELECT w.tenant_id FROM waiting w JOIN tenants t ON t.id = w.tenant_id WHERE t.status IN ('active', 'suspended') \
ORDER BY w.tenant_id LIMIT $2";

#[async_trait]
impl UnpublishedEvents for PgUnpublishedEvents {
    async fn waiting(
        &self,
        because: SystemScope,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<TenantId>, StoreError> {
        let after = after.map_or_else(Uuid::nil, TenantId::uuid);
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let rows = tx
            .fetch_fixed(WAITING, [after.into(), i64::from(limit).into()])
            .await?;
        tx.commit().await?;
        let tenant = |row| column::<Uuid>(row, "tenant_id").map(TenantId::from);
        rows.iter().map(tenant).collect()
    }
}
