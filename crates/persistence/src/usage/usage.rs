use std::collections::{BTreeMap, BTreeSet, HashMap};

use async_trait::async_trait;
use sea_orm::{ColumnTrait as _, Value};
use serde::Serialize;
use tenantry_domain::kernel::{Period, StoreError, Time, UsageEventId};
use tenantry_domain::usage::{
    Aggregation, Appended, Granularity, Intake, KeyedUsage, Measured, MeterKey, Rollup, Usage, UsageEvent,
    UsageKey, UsageOrigin,
};

use crate::kernel::advisory;
use crate::kernel::error::{column, from_json};
use crate::kernel::store::{PgStore, meter, unknown};

mod event {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "usage_events")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub meter: String,
        pub quantity: i64,
        pub subject: Option<String>,
        pub event_at: DateTimeUtc,
        pub source: String,
        pub idempotency_key: String,
        pub origin: String,
        pub properties: Option<Json>,
        pub invalidates: Option<Uuid>,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}

mod key {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "usage_keys")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub source: String,
        pub key: String,
        pub payload_hash: String,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}

mod dirty {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "usage_dirty")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub meter: String,
        pub hour: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}

mod intake {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "usage_intake")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub meter: String,
        pub day: DateTimeUtc,
        pub events: i64,
        pub quantity: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}

mod hour {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "usage_hours")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub meter: String,
        pub hour: DateTimeUtc,
        pub quantity: i64,
        pub events: i64,
        pub revision: i64,
        pub computed_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}

mod day {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "usage_days")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub meter: String,
        pub day: DateTimeUtc,
        pub quantity: i64,
        pub events: i64,
        pub revision: i64,
        pub computed_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}

/// Keys that are not there yet, the events of these, and a mark for each hour they touch, under the id of one of its events:
/// in one statement, so that an event costs one round trip, and with one argument, however many there are.
const APPEND: &str = "\
WITH rows AS MATERIALIZED (SELECT * FROM jsonb_to_recordset($2::text::jsonb) AS r (id uuid, created_at timestamptz, meter text, \
  quantity bigint, subject text, event_at timestamptz, source text, key text, payload_hash text, origin text, \
  properties jsonb, invalidates uuid)), \
keys AS (INSERT INTO usage_keys (tenant_id, id, created_at, source, key, payload_hash) \
 SELECT $1, id, created_at, source, key, payload_hash FROM rows ON CONFLICT DO NOTHING RETURNING id), \
events AS (INSERT INTO usage_events (tenant_id, id, created_at, meter, quantity, subject, event_at, source, \
  idempotency_key, origin, properties, invalidates) \
 SELECT $1, r.id, r.created_at, r.meter, r.quantity, r.subject, r.event_at, r.source, r.key, r.origin, r.properties, \
  r.invalidates FROM rows r JOIN keys k ON k.id = r.id RETURNING id, created_at, meter, event_at), \
marks AS (INSERT INTO usage_dirty (tenant_id, id, created_at, meter, hour) \
 SELECT $1, (array_agg(e.id))[1], min(e.created_at), e.meter, date_trunc('hour', e.event_at, 'UTC') FROM events e \
 GROUP BY 4, 5) \
SELECT id FROM keys";

/// In the order of the key, so that two who send at once do not wait for one another in a circle.
const ADD_INTAKE: &str = "\
INSERT INTO usage_intake AS t (\"tenant_id\", created_at, meter, day, events, quantity) \
SELECT $1, $3, r.meter, r.day, r.events, r.quantity \
  FROM jsonb_to_recordset($2::text::jsonb) AS r (meter text, day timestamptz, events bigint, quantity bigint) \
 ORDER BY r.meter, r.day \
ON CONFLICT (tenant_id, meter, day) DO UPDATE SET events = t.events + EXCLUDED.events, \
  quantity = t.quantity + EXCLUDED.quantity \
RETURNING meter, day, events, quantity";

/// Of events that were accepted before there was a bound nothing was added, so that there may be less than is to be taken.
const RETURN_INTAKE: &str = "\
UPDATE usage_intake AS t SET quantity = greatest(t.quantity - $4, 0) \
 WHERE t.tenant_id = $1 AND t.meter = $2 AND t.day = $3";

/// Stands for all meters in `usage_intake`.
const ALL_METERS: &str = "*";

/// What one number of each kind is made of: the events of a meter and a period that are no invalidations and that none
/// invalidates. An invalidation is of the same meter and moment as what it invalidates. They are looked up once: with
/// NOT EXISTS the planner, which takes a period for a few rows, would look for each event's through all of them.
macro_rules! measuring {
    ($quantity:literal) => {
        concat!(
            "SELECT coalesce(",
            $quantity,
            ", 0)::bigint AS quantity, count(*) AS events FROM usage_events u \
             WHERE u.tenant_id = $1 AND u.meter = $2 AND u.event_at >= $3 AND u.event_at < $4 \
             AND u.invalidates IS NULL AND u.id NOT IN (SELECT i.invalidates FROM usage_events i WHERE i.tenant_id = $1 \
             AND i.meter = $2 AND i.event_at >= $3 AND i.event_at < $4 AND i.invalidates IS NOT NULL)"
        )
    };
}

/// Sums of what was accepted are bounded ([`NewUsage::MOST_OF_A_DAY`](tenantry_domain::usage::NewUsage::MOST_OF_A_DAY)). Where older data
/// comes to more than can be said it is the largest that can. The sum of nothing is NULL, which `least` would pass over.
const SUM: &str = measuring!("least(coalesce(sum(u.quantity), 0), 9223372036854775807)");
const COUNT: &str = measuring!("count(*)");
const MAX: &str = measuring!("max(u.quantity)");
const LAST: &str =
    measuring!("(array_agg(u.quantity ORDER BY u.event_at DESC, u.created_at DESC, u.id DESC))[1]");
const UNIQUE: &str = measuring!("count(DISTINCT u.subject)");

const LATEST: &str = "\
SELECT u.event_at, u.quantity FROM usage_events u \
 WHERE u.tenant_id = $1 AND u.meter = $2 AND u.event_at < $3 AND u.invalidates IS NULL \
   AND NOT EXISTS (SELECT FROM usage_events i WHERE i.tenant_id = $1 AND i.invalidates = u.id AND i.event_at = u.event_at) \
 ORDER BY u.event_at DESC, u.created_at DESC, u.id DESC LIMIT 1";

/// A process that has died is looked up so once.
const RECORDED_SINCE: &str = "\
SELECT coalesce(sum(u.quantity), 0)::bigint AS quantity FROM usage_events u \
 WHERE u.tenant_id = $1 AND u.meter = $2 AND u.event_at >= $3 AND u.source = $4 AND starts_with(u.idempotency_key, $5)";

const TAKE_DIRTY: &str = "\
DELETE FROM usage_dirty u WHERE u.tenant_id = $1 AND (u.meter, u.hour) IN (SELECT d.meter, d.hour FROM usage_dirty d \
 WHERE d.tenant_id = $1 GROUP BY d.meter, d.hour ORDER BY d.meter, d.hour LIMIT $2) RETURNING u.meter, u.hour";

/// The number is replaced, and the revision grows when it is another.
macro_rules! storing {
    ($table:literal, $period:literal) => {
        concat!(
            "INSERT INTO ",
            $table,
            " AS t (\"tenant_id\", created_at, meter, ",
            $period,
            ", quantity, events, revision, \
             computed_at) VALUES ($1, $2, $3, $4, $5, $6, 1, $2) ON CONFLICT (tenant_id, meter, ",
            $period,
            ") DO UPDATE SET \
             quantity = EXCLUDED.quantity, events = EXCLUDED.events, computed_at = EXCLUDED.computed_at, \
             revision = t.revision + (t.quantity <> EXCLUDED.quantity)::int RETURNING revision"
        )
    };
}

const STORE_HOUR: &str = storing!("usage_hours", "hour");
const STORE_DAY: &str = storing!("usage_days", "day");

#[async_trait]
impl Usage for PgStore {
    async fn append(&mut self, events: &[KeyedUsage]) -> Result<Vec<Appended>, StoreError> {
        // One order for everybody, so that two who send the same cannot wait for each other in a circle.
        let mut sorted: Vec<&KeyedUsage> = events.iter().collect();
        sorted.sort_unstable_by(|one, other| one.event.key.cmp(&other.event.key));
        let rows: Vec<Row<'_>> = sorted.into_iter().map(Row::from).collect();
        // As text: a tree of a thousand events would take megabytes for each request.
        let rows = serde_json::to_string(&rows).map_err(from_json)?;
        let inserted = self.tx.fetch_all_fixed(APPEND, [rows.into()]).await?;
        let id = |row| column::<uuid::Uuid>(row, "id").map(UsageEventId::from);
        let inserted: BTreeSet<UsageEventId> = inserted.iter().map(id).collect::<Result<_, _>>()?;
        let is_new = |keyed: &&KeyedUsage| inserted.contains(&keyed.event.id);
        let there: Vec<&UsageKey> = events
            .iter()
            .filter(|keyed| !is_new(keyed))
            .map(|keyed| &keyed.event.key)
            .collect();
        let there = self.keys_there(&there).await?;
        let appended = |keyed: &KeyedUsage| match there.get(&keyed.event.key) {
            _ if inserted.contains(&keyed.event.id) => Ok(Appended::Accepted(keyed.event.id)),
            Some((id, hash)) if *hash == keyed.payload_hash => Ok(Appended::Duplicate(*id)),
            Some(_) => Ok(Appended::Conflict),
            // Its key was forgotten between two statements, after months; whoever sends it again is told the truth.
            None => Err(StoreError::Contention),
        };
        events.iter().map(appended).collect()
    }

    async fn add_intake(&mut self, more: &[Intake], now: Time) -> Result<Vec<Intake>, StoreError> {
        let row = |more: &Intake| {
            let meter = more.meter.as_ref().map_or(ALL_METERS, MeterKey::as_str);
            let (events, quantity) = (signed(more.events), signed(more.quantity));
            serde_json::json!({"meter": meter, "day": more.day, "events": events, "quantity": quantity})
        };
        let rows = serde_json::Value::Array(more.iter().map(row).collect());
        let arguments: [Value; 2] = [rows.to_string().into(), now.into()];
        let rows = self.tx.fetch_all_fixed(ADD_INTAKE, arguments).await?;
        let read = |row| {
            let key: String = column(row, "meter")?;
            Ok(Intake {
                meter: match key.as_str() {
                    ALL_METERS => None,
                    key => Some(meter(key, "usage_intake.meter")?),
                },
                day: column(row, "day")?,
                events: unsigned(column(row, "events")?),
                quantity: unsigned(column(row, "quantity")?),
            })
        };
        rows.iter().map(read).collect()
    }

    async fn return_intake(&mut self, meter: &MeterKey, day: Time, quantity: u64) -> Result<(), StoreError> {
        let arguments: [Value; 3] = [meter.as_str().into(), day.into(), signed(quantity).into()];
        self.tx.fetch_fixed(RETURN_INTAKE, arguments).await.map(|_| ())
    }

    async fn accepted_on(&mut self, day: Time) -> Result<u64, StoreError> {
        let find = self.tx.find::<intake::Entity>();
        let find = find.filter(intake::Column::Meter.eq(ALL_METERS));
        let row = find.filter(intake::Column::Day.eq(day)).one().await?;
        Ok(row.map_or(0, |row| unsigned(row.events)))
    }

    async fn find(&mut self, id: UsageEventId) -> Result<Option<UsageEvent>, StoreError> {
        let find = self.tx.find::<event::Entity>();
        let row = find.filter(event::Column::Id.eq(id.uuid())).one().await?;
        row.map(UsageEvent::try_from).transpose()
    }

    async fn latest(
        &mut self,
        meter: &MeterKey,
        before: Option<Time>,
    ) -> Result<Option<(Time, u64)>, StoreError> {
        // The year 9999 is later than anything that is accepted.
        let before = before.unwrap_or(Time::UNIX_EPOCH + chrono::Duration::days(2_932_896));
        let arguments: [Value; 2] = [meter.as_str().into(), before.into()];
        let row = self.tx.fetch_fixed(LATEST, arguments).await?;
        row.map(|row| Ok((column(&row, "event_at")?, unsigned(column(&row, "quantity")?))))
            .transpose()
    }

    async fn measure(
        &mut self,
        meter: &MeterKey,
        aggregation: Aggregation,
        period: Period,
    ) -> Result<Measured, StoreError> {
        let sql = match aggregation {
            Aggregation::Sum => SUM,
            Aggregation::Count => COUNT,
            Aggregation::Max => MAX,
            Aggregation::Last => LAST,
            Aggregation::Unique => UNIQUE,
        };
        let arguments: [Value; 3] = [meter.as_str().into(), period.start.into(), period.end.into()];
        match self.tx.fetch_fixed(sql, arguments).await? {
            Some(row) => Ok(Measured {
                quantity: unsigned(column(&row, "quantity")?),
                events: unsigned(column(&row, "events")?),
            }),
            None => Err(StoreError::Other("a measurement answered nothing".into())),
        }
    }

    async fn recorded_since(
        &mut self,
        meter: &MeterKey,
        since: Time,
        beginning: &str,
    ) -> Result<u64, StoreError> {
        let arguments: [Value; 4] = [
            meter.as_str().into(),
            since.into(),
            UsageKey::SERVER.into(),
            beginning.into(),
        ];
        let row = self.tx.fetch_fixed(RECORDED_SINCE, arguments).await?;
        row.map_or(Ok(0), |row| Ok(unsigned(column(&row, "quantity")?)))
    }

    async fn dirty_hours(&mut self, meter: &MeterKey, period: Period) -> Result<Vec<Time>, StoreError> {
        let find = self.tx.find::<dirty::Entity>();
        let rows = find
            .filter(dirty::Column::Meter.eq(meter.as_str()))
            .filter(dirty::Column::Hour.gte(period.start))
            .filter(dirty::Column::Hour.lt(period.end))
            .all()
            .await?;
        let hours: BTreeSet<Time> = rows.into_iter().map(|row| row.hour).collect();
        Ok(hours.into_iter().collect())
    }

    async fn rollups(
        &mut self,
        meter: &MeterKey,
        granularity: Granularity,
        period: Period,
    ) -> Result<Vec<Rollup>, StoreError> {
        match granularity {
            Granularity::Hour => {
                let find = self.tx.find::<hour::Entity>();
                let find = find
                    .filter(hour::Column::Meter.eq(meter.as_str()))
                    .filter(hour::Column::Hour.gte(period.start))
                    .filter(hour::Column::Hour.lt(period.end));
                let rows = find.order_by_asc(hour::Column::Hour).all().await?;
                Ok(rows.into_iter().map(Rollup::from).collect())
            }
            Granularity::Day => {
                let find = self.tx.find::<day::Entity>();
                let find = find
                    .filter(day::Column::Meter.eq(meter.as_str()))
                    .filter(day::Column::Day.gte(period.start))
                    .filter(day::Column::Day.lt(period.end));
                let rows = find.order_by_asc(day::Column::Day).all().await?;
                Ok(rows.into_iter().map(Rollup::from).collect())
            }
        }
    }

    async fn lock_rollups(&mut self) -> Result<(), StoreError> {
        self.tx.fetch_fixed(advisory::ROLL_UP_USAGE, []).await.map(|_| ())
    }

    async fn take_dirty(&mut self, limit: u32) -> Result<Vec<(MeterKey, Time)>, StoreError> {
        let rows = self
            .tx
            .fetch_all_fixed(TAKE_DIRTY, [i64::from(limit).into()])
            .await?;
        let mut taken = BTreeSet::new();
        for row in rows {
            let key: String = column(&row, "meter")?;
            taken.insert((meter(&key, "usage_dirty.meter")?, column(&row, "hour")?));
        }
        Ok(taken.into_iter().collect())
    }

    async fn store_rollup(
        &mut self,
        meter: &MeterKey,
        granularity: Granularity,
        (start, measured): (Time, Measured),
        now: Time,
    ) -> Result<(), StoreError> {
        let sql = match granularity {
            Granularity::Hour => STORE_HOUR,
            Granularity::Day => STORE_DAY,
        };
        let arguments: [Value; 5] = [
            now.into(),
            meter.as_str().into(),
            start.into(),
            signed(measured.quantity).into(),
            signed(measured.events).into(),
        ];
        self.tx.fetch_fixed(sql, arguments).await.map(|_| ())
    }

    async fn delete_intake(&mut self, before: Time) -> Result<u64, StoreError> {
        let delete = self.tx.delete::<intake::Entity>();
        delete.filter(intake::Column::Day.lt(before)).run().await
    }

    async fn delete_keys(&mut self, before: Time) -> Result<u64, StoreError> {
        let delete = self.tx.delete::<key::Entity>();
        delete.filter(key::Column::CreatedAt.lt(before)).run().await
    }
}

impl PgStore {
    /// What was accepted under keys, by key: the event and the hash of its payload.
    async fn keys_there(
        &mut self,
        keys: &[&UsageKey],
    ) -> Result<HashMap<UsageKey, (UsageEventId, String)>, StoreError> {
        let mut by_source: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for key in keys {
            by_source.entry(&key.source).or_default().push(&key.key);
        }
        let mut there = HashMap::new();
        for (source, keys) in by_source {
            let find = self.tx.find::<key::Entity>();
            let find = find
                .filter(key::Column::Source.eq(source))
                .filter(key::Column::Key.is_in(keys));
            let rows = find.all().await?;
            there.extend(rows.into_iter().map(|row| {
                (
                    UsageKey::new(row.source, row.key),
                    (row.id.into(), row.payload_hash),
                )
            }));
        }
        Ok(there)
    }
}

/// An event as [`APPEND`] takes it.
#[derive(Serialize)]
struct Row<'a> {
    id: uuid::Uuid,
    created_at: Time,
    meter: &'a str,
    quantity: i64,
    subject: Option<&'a str>,
    event_at: Time,
    source: &'a str,
    key: &'a str,
    payload_hash: &'a str,
    origin: &'static str,
    properties: Option<&'a serde_json::Value>,
    invalidates: Option<uuid::Uuid>,
}

impl<'a> From<&'a KeyedUsage> for Row<'a> {
    fn from(keyed: &'a KeyedUsage) -> Self {
        let event = &keyed.event;
        Self {
            id: event.id.uuid(),
            created_at: event.accepted_at,
            meter: event.meter.as_str(),
            quantity: signed(event.quantity),
            subject: event.subject.as_deref(),
            event_at: event.event_at,
            source: &event.key.source,
            key: &event.key.key,
            payload_hash: &keyed.payload_hash,
            origin: event.origin.as_str(),
            properties: event.properties.as_ref(),
            invalidates: event.invalidates.map(UsageEventId::uuid),
        }
    }
}

impl TryFrom<event::Model> for UsageEvent {
    type Error = StoreError;

    fn try_from(row: event::Model) -> Result<Self, StoreError> {
        let origin = UsageOrigin::parse(&row.origin);
        Ok(Self {
            id: row.id.into(),
            meter: meter(&row.meter, "usage_events.meter")?,
            quantity: unsigned(row.quantity),
            subject: row.subject,
            event_at: row.event_at,
            accepted_at: row.created_at,
            key: UsageKey::new(row.source, row.idempotency_key),
            origin: origin.ok_or_else(|| unknown("usage_events.origin", &row.origin))?,
            properties: row.properties,
            invalidates: row.invalidates.map(UsageEventId::from),
        })
    }
}

impl From<hour::Model> for Rollup {
    fn from(row: hour::Model) -> Self {
        let measured = Measured {
            quantity: unsigned(row.quantity),
            events: unsigned(row.events),
        };
        Self {
            start: row.hour,
            measured,
            revision: row.revision,
            computed_at: row.computed_at,
        }
    }
}

impl From<day::Model> for Rollup {
    fn from(row: day::Model) -> Self {
        let measured = Measured {
            quantity: unsigned(row.quantity),
            events: unsigned(row.events),
        };
        Self {
            start: row.day,
            measured,
            revision: row.revision,
            computed_at: row.computed_at,
        }
    }
}

/// The database holds no negative quantities.
fn unsigned(number: i64) -> u64 {
    number.unsigned_abs()
}

/// What is larger than the database can say is the largest that it can.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
