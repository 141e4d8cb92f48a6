use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _, Condition, QueryResult};
use tenantry_domain::kernel::{
    Limit, Page, PageRequest, Period, Position, QuotaAlertId, QuotaCounterId, QuotaLeaseId,
    QuotaReservationId, StoreError, Time,
};
use tenantry_domain::usage::{
    AlertBase, MOST_UNITS, MeterKey, QuotaAlert, QuotaCounter, QuotaLease, QuotaReservation, Quotas,
    ReservationState, Tally, Threshold,
};
use uuid::Uuid;

use crate::kernel::error::column;
use crate::kernel::store::{PgStore, exactly_one, meter, unknown};
use crate::kernel::tx::Lock;

pub(crate) mod counter {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "quota_counters")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub meter: String,
        pub period_start: DateTimeUtc,
        pub period_end: DateTimeUtc,
        pub used: i64,
        pub reserved: i64,
        pub leased: i64,
        pub alerted_included: i32,
        pub alerted_limit: i32,
        pub adjustment: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}

pub(crate) mod lease {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "quota_leases")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub counter_id: Uuid,
        pub instance: Uuid,
        pub amount: i64,
        pub expires_at: DateTimeUtc,
        pub expired: bool,
        pub counted: i64,
        pub counting_since: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}

pub(crate) mod reservation {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "quota_reservations")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub counter_id: Uuid,
        pub meter: String,
        pub period_start: DateTimeUtc,
        pub period_end: DateTimeUtc,
        pub amount: i64,
        pub state: String,
        pub actual: Option<i64>,
        pub expires_at: DateTimeUtc,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}

pub(crate) mod alert {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "quota_alerts")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub counter_id: Uuid,
        pub meter: String,
        pub period_start: DateTimeUtc,
        pub period_end: DateTimeUtc,
        pub base: String,
        pub percent: i32,
        pub amount: i64,
        pub used: i64,
        pub told_at: Option<DateTimeUtc>,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}

/// [`Tally::consume`] in one statement: whoever comes second waits for the row and is compared with what the first has
/// left. Everything is subtracted from the limit, since a sum could be more than the database counts to.
const CONSUME: &str = "\
UPDATE quota_counters AS q SET used = q.used + $4 \
 WHERE q.tenant_id = $1 AND q.meter = $2 AND q.period_start = $3 AND $4 <= $5 - q.used - q.reserved - q.leased \
RETURNING q.id, q.created_at, q.period_end, q.used, q.reserved, q.leased, q.alerted_included, q.alerted_limit, \
 q.adjustment";

/// The time of this moment, rather than of the transaction's beginning: a lock may have been waited for since.
const NOW: &str = "SELECT clock_timestamp() AS at, $1::uuid AS tenant";

#[async_trait]
impl Quotas for PgStore {
    async fn now(&mut self) -> Result<Time, StoreError> {
        match self.tx.fetch_fixed(NOW, []).await? {
            Some(row) => column(&row, "at"),
            None => Err(StoreError::Other("the clock answered nothing".into())),
        }
    }

    async fn around(&mut self, at: Time, these: &[QuotaCounterId]) -> Result<Vec<QuotaCounter>, StoreError> {
        let these = these.iter().map(|id| id.uuid());
        let is_around = Condition::all().add(counter::Column::PeriodStart.lte(at));
        let is_around = is_around.add(counter::Column::PeriodEnd.gt(at));
        let wanted = Condition::any()
            .add(is_around)
            .add(counter::Column::Id.is_in(these));
        let find = self.tx.find::<counter::Entity>().filter(wanted);
        let find = find.order_by_asc(counter::Column::Meter);
        let rows = find.order_by_asc(counter::Column::PeriodStart).all().await?;
        rows.into_iter().map(QuotaCounter::try_from).collect()
    }

    async fn find(&mut self, meter: &MeterKey, start: Time) -> Result<Option<QuotaCounter>, StoreError> {
        let find = self.tx.find::<counter::Entity>();
        let find = find.filter(counter::Column::Meter.eq(meter.as_str()));
        let row = find.filter(counter::Column::PeriodStart.eq(start)).one().await?;
        row.map(QuotaCounter::try_from).transpose()
    }

    async fn lock(&mut self, new: &QuotaCounter) -> Result<QuotaCounter, StoreError> {
        if let Some(counter) = self.locked(new).await? {
            return Ok(counter);
        }
        // Whoever comes first makes the row; the others wait for them here and find it below.
        let row = counter::ActiveModel {
            id: Set(new.id.uuid()),
            created_at: Set(new.created_at),
            meter: Set(new.meter.as_str().to_owned()),
            period_start: Set(new.period.start),
            period_end: Set(new.period.end),
            ..numbers(new)?
        };
        self.tx.insert_unless_there(row).await?;
        let counter = self.locked(new).await?;
        counter.ok_or_else(|| StoreError::Other("the counter of a quota is gone".into()))
    }

    async fn find_for_update(&mut self, id: QuotaCounterId) -> Result<Option<QuotaCounter>, StoreError> {
        let find = self.tx.find::<counter::Entity>();
        let find = find.filter(counter::Column::Id.eq(id.uuid())).lock(Lock::Update);
        find.one().await?.map(QuotaCounter::try_from).transpose()
    }

    async fn consume(
        &mut self,
        meter: &MeterKey,
        start: Time,
        amount: u64,
        limit: Limit,
    ) -> Result<Option<QuotaCounter>, StoreError> {
        let most = match limit {
            Limit::Of(most) => most.min(MOST_UNITS),
            Limit::Unlimited => MOST_UNITS,
        };
        // More than can be counted is more than there can be.
        let Ok(amount) = i64::try_from(amount) else {
            return Ok(None);
        };
        let arguments = [
            meter.as_str().into(),
            start.into(),
            amount.into(),
            most.cast_signed().into(),
        ];
        let row = self.tx.fetch_fixed(CONSUME, arguments).await?;
        row.map(|row| consumed(&row, meter.clone(), start)).transpose()
    }

    async fn save(&mut self, counter: &QuotaCounter) -> Result<(), StoreError> {
        let update = self.tx.update::<counter::Entity>().set(numbers(counter)?);
        exactly_one(
            update
                .filter(counter::Column::Id.eq(counter.id.uuid()))
                .run()
                .await?,
        )
    }

    async fn leases(&mut self, counter: QuotaCounterId) -> Result<Vec<QuotaLease>, StoreError> {
        let find = self.tx.find::<lease::Entity>();
        let find = find.filter(lease::Column::CounterId.eq(counter.uuid()));
        let rows = find.filter(lease::Column::Expired.eq(false)).all().await?;
        Ok(rows.into_iter().map(QuotaLease::from).collect())
    }

    async fn lease(&mut self, id: QuotaLeaseId) -> Result<Option<QuotaLease>, StoreError> {
        let find = self.tx.find::<lease::Entity>();
        let row = find.filter(lease::Column::Id.eq(id.uuid())).one().await?;
        Ok(row.map(QuotaLease::from))
    }

    async fn insert_lease(&mut self, lease: &QuotaLease) -> Result<(), StoreError> {
        let row = lease::ActiveModel {
            id: Set(lease.id.uuid()),
            created_at: Set(lease.created_at),
            counter_id: Set(lease.counter.uuid()),
            instance: Set(lease.instance),
            amount: Set(stored(lease.amount)?),
            expires_at: Set(lease.expires_at),
            expired: Set(lease.expired),
            counted: Set(stored(lease.counted)?),
            counting_since: Set(lease.counting_since),
            ..Default::default()
        };
        self.tx.insert(row).await
    }

    async fn held_by(&mut self, instance: Uuid) -> Result<Vec<QuotaLease>, StoreError> {
        let find = self.tx.find::<lease::Entity>();
        let rows = find.filter(lease::Column::Instance.eq(instance)).all().await?;
        Ok(rows.into_iter().map(QuotaLease::from).collect())
    }

    async fn expire_lease(&mut self, id: QuotaLeaseId) -> Result<(), StoreError> {
        let row = lease::ActiveModel {
            expired: Set(true),
            ..Default::default()
        };
        let update = self.tx.update::<lease::Entity>().set(row);
        exactly_one(update.filter(lease::Column::Id.eq(id.uuid())).run().await?)
    }

    async fn delete_lease(&mut self, id: QuotaLeaseId) -> Result<(), StoreError> {
        let delete = self.tx.delete::<lease::Entity>();
        exactly_one(delete.filter(lease::Column::Id.eq(id.uuid())).run().await?)
    }

    async fn lost_leases(&mut self, before: Time) -> Result<Vec<QuotaLease>, StoreError> {
        let find = self.tx.find::<lease::Entity>();
        let rows = find.filter(lease::Column::ExpiresAt.lt(before)).all().await?;
        Ok(rows.into_iter().map(QuotaLease::from).collect())
    }

    async fn delete_lost_leases(&mut self, counter: QuotaCounterId, before: Time) -> Result<(), StoreError> {
        let delete = self.tx.delete::<lease::Entity>();
        let delete = delete.filter(lease::Column::CounterId.eq(counter.uuid()));
        delete.filter(lease::Column::ExpiresAt.lt(before)).run().await?;
        Ok(())
    }

    async fn reservation(&mut self, id: QuotaReservationId) -> Result<Option<QuotaReservation>, StoreError> {
        let find = self.tx.find::<reservation::Entity>();
        let row = find.filter(reservation::Column::Id.eq(id.uuid())).one().await?;
        row.map(QuotaReservation::try_from).transpose()
    }

    async fn overdue(
        &mut self,
        counter: QuotaCounterId,
        now: Time,
    ) -> Result<Vec<QuotaReservation>, StoreError> {
        let find = self.tx.find::<reservation::Entity>();
        let find = find.filter(reservation::Column::CounterId.eq(counter.uuid()));
        let find = find.filter(reservation::Column::State.eq(ReservationState::Open.as_str()));
        let rows = find.filter(reservation::Column::ExpiresAt.lte(now)).all().await?;
        rows.into_iter().map(QuotaReservation::try_from).collect()
    }

    async fn open_reservations(
        &mut self,
        meter: &MeterKey,
        now: Time,
        page: PageRequest,
    ) -> Result<Page<QuotaReservation>, StoreError> {
        let find = self.tx.find::<reservation::Entity>();
        let find = find.filter(reservation::Column::Meter.eq(meter.as_str()));
        let find = find.filter(reservation::Column::State.eq(ReservationState::Open.as_str()));
        let find = find.filter(reservation::Column::ExpiresAt.gt(now));
        let key = (reservation::Column::CreatedAt, reservation::Column::Id);
        let position = |row: &reservation::Model| Position {
            created_at: row.created_at,
            id: row.id,
        };
        find.page(key, page, position)
            .await?
            .try_map(QuotaReservation::try_from)
    }

    async fn insert_reservation(&mut self, reservation: &QuotaReservation) -> Result<(), StoreError> {
        let row = reservation::ActiveModel {
            id: Set(reservation.id.uuid()),
            created_at: Set(reservation.created_at),
            counter_id: Set(reservation.counter.uuid()),
            meter: Set(reservation.meter.as_str().to_owned()),
            period_start: Set(reservation.period.start),
            period_end: Set(reservation.period.end),
            amount: Set(stored(reservation.amount)?),
            expires_at: Set(reservation.expires_at),
            ..outcome(reservation)?
        };
        self.tx.insert(row).await
    }

    async fn update_reservation(&mut self, reservation: &QuotaReservation) -> Result<(), StoreError> {
        let update = self.tx.update::<reservation::Entity>().set(outcome(reservation)?);
        let update = update.filter(reservation::Column::Id.eq(reservation.id.uuid()));
        exactly_one(update.run().await?)
    }

    async fn insert_alert(&mut self, alert: &QuotaAlert) -> Result<bool, StoreError> {
        let percent = i32::try_from(alert.threshold.percent);
        let row = alert::ActiveModel {
            id: Set(alert.id.uuid()),
            created_at: Set(alert.created_at),
            counter_id: Set(alert.counter.uuid()),
            meter: Set(alert.meter.as_str().to_owned()),
            period_start: Set(alert.period.start),
            period_end: Set(alert.period.end),
            base: Set(alert.threshold.base.as_str().to_owned()),
            percent: Set(percent.map_err(|error| StoreError::Other(error.to_string()))?),
            amount: Set(stored(alert.threshold.amount.min(MOST_UNITS))?),
            used: Set(stored(alert.used)?),
            told_at: Set(alert.told_at),
            ..Default::default()
        };
        self.tx.insert_unless_there(row).await
    }

    async fn alert_for_update(&mut self, id: QuotaAlertId) -> Result<Option<QuotaAlert>, StoreError> {
        let find = self.tx.find::<alert::Entity>();
        let find = find.filter(alert::Column::Id.eq(id.uuid())).lock(Lock::Update);
        find.one().await?.map(QuotaAlert::try_from).transpose()
    }

    async fn tell_alert(&mut self, id: QuotaAlertId, at: Time) -> Result<(), StoreError> {
        let row = alert::ActiveModel {
            told_at: Set(Some(at)),
            ..Default::default()
        };
        let update = self.tx.update::<alert::Entity>().set(row);
        exactly_one(update.filter(alert::Column::Id.eq(id.uuid())).run().await?)
    }

    async fn alerts(&mut self, page: PageRequest) -> Result<Page<QuotaAlert>, StoreError> {
        let find = self.tx.find::<alert::Entity>();
        let key = (alert::Column::CreatedAt, alert::Column::Id);
        let position = |row: &alert::Model| Position {
            created_at: row.created_at,
            id: row.id,
        };
        find.page(key, page, position)
            .await?
            .try_map(QuotaAlert::try_from)
    }

    async fn unswept(&mut self, now: Time) -> Result<Vec<QuotaCounterId>, StoreError> {
        let find = self
            .tx
            .find::<lease::Entity>()
            .filter(lease::Column::Expired.eq(false));
        let leases = find.filter(lease::Column::ExpiresAt.lte(now)).all().await?;
        let find = self.tx.find::<reservation::Entity>();
        let find = find.filter(reservation::Column::State.eq(ReservationState::Open.as_str()));
        let reservations = find.filter(reservation::Column::ExpiresAt.lte(now)).all().await?;
        let leases = leases.into_iter().map(|row| row.counter_id);
        let reservations = reservations.into_iter().map(|row| row.counter_id);
        let mut counters: Vec<_> = leases.chain(reservations).map(QuotaCounterId::from).collect();
        counters.sort_unstable();
        counters.dedup();
        Ok(counters)
    }

    async fn delete_ended(&mut self, before: Time) -> Result<u64, StoreError> {
        let delete = self.tx.delete::<counter::Entity>();
        delete.filter(counter::Column::PeriodEnd.lt(before)).run().await
    }
}

impl PgStore {
    async fn locked(&mut self, new: &QuotaCounter) -> Result<Option<QuotaCounter>, StoreError> {
        let find = self.tx.find::<counter::Entity>();
        let find = find.filter(counter::Column::Meter.eq(new.meter.as_str()));
        let find = find.filter(counter::Column::PeriodStart.eq(new.period.start));
        let row = find.lock(Lock::Update).one().await?;
        row.map(QuotaCounter::try_from).transpose()
    }
}

fn stored(amount: u64) -> Result<i64, StoreError> {
    i64::try_from(amount).map_err(|error| StoreError::Other(error.to_string()))
}

/// All columns of a counter that may change.
fn numbers(counter: &QuotaCounter) -> Result<counter::ActiveModel, StoreError> {
    let percent = |percent: u32| i32::try_from(percent).map_err(|error| StoreError::Other(error.to_string()));
    Ok(counter::ActiveModel {
        used: Set(stored(counter.tally.used)?),
        reserved: Set(stored(counter.tally.reserved)?),
        leased: Set(stored(counter.tally.leased)?),
        adjustment: Set(counter.adjustment),
        alerted_included: Set(percent(counter.alerted_included)?),
        alerted_limit: Set(percent(counter.alerted_limit)?),
        ..Default::default()
    })
}

/// All columns of a reservation that may change.
fn outcome(reservation: &QuotaReservation) -> Result<reservation::ActiveModel, StoreError> {
    Ok(reservation::ActiveModel {
        state: Set(reservation.state.as_str().to_owned()),
        actual: Set(reservation.actual.map(stored).transpose()?),
        ..Default::default()
    })
}

fn consumed(row: &QueryResult, meter: MeterKey, start: Time) -> Result<QuotaCounter, StoreError> {
    let number = |name: &'static str| column::<i64>(row, name).map(i64::unsigned_abs);
    let percent = |name: &'static str| column::<i32>(row, name).map(i32::unsigned_abs);
    Ok(QuotaCounter {
        id: column::<sea_orm::prelude::Uuid>(row, "id")?.into(),
        meter,
        period: Period {
            start,
            end: column(row, "period_end")?,
        },
        tally: Tally {
            used: number("used")?,
            reserved: number("reserved")?,
            leased: number("leased")?,
        },
        adjustment: column(row, "adjustment")?,
        alerted_included: percent("alerted_included")?,
        alerted_limit: percent("alerted_limit")?,
        created_at: column(row, "created_at")?,
    })
}

impl TryFrom<counter::Model> for QuotaCounter {
    type Error = StoreError;

    fn try_from(row: counter::Model) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id.into(),
            meter: meter(&row.meter, "quota_counters.meter")?,
            period: Period {
                start: row.period_start,
                end: row.period_end,
            },
            tally: Tally {
                used: row.used.unsigned_abs(),
                reserved: row.reserved.unsigned_abs(),
                leased: row.leased.unsigned_abs(),
            },
            adjustment: row.adjustment,
            alerted_included: row.alerted_included.unsigned_abs(),
            alerted_limit: row.alerted_limit.unsigned_abs(),
            created_at: row.created_at,
        })
    }
}

impl From<lease::Model> for QuotaLease {
    fn from(row: lease::Model) -> Self {
        Self {
            id: row.id.into(),
            counter: row.counter_id.into(),
            instance: row.instance,
            amount: row.amount.unsigned_abs(),
            expires_at: row.expires_at,
            expired: row.expired,
            created_at: row.created_at,
            counted: row.counted.unsigned_abs(),
            counting_since: row.counting_since,
        }
    }
}

impl TryFrom<reservation::Model> for QuotaReservation {
    type Error = StoreError;

    fn try_from(row: reservation::Model) -> Result<Self, StoreError> {
        let state = ReservationState::parse(&row.state);
        Ok(Self {
            id: row.id.into(),
            counter: row.counter_id.into(),
            meter: meter(&row.meter, "quota_reservations.meter")?,
            period: Period {
                start: row.period_start,
                end: row.period_end,
            },
            amount: row.amount.unsigned_abs(),
            state: state.ok_or_else(|| unknown("quota_reservations.state", &row.state))?,
            actual: row.actual.map(i64::unsigned_abs),
            expires_at: row.expires_at,
            created_at: row.created_at,
        })
    }
}

impl TryFrom<alert::Model> for QuotaAlert {
    type Error = StoreError;

    fn try_from(row: alert::Model) -> Result<Self, StoreError> {
        let base = AlertBase::parse(&row.base).ok_or_else(|| unknown("quota_alerts.base", &row.base))?;
        Ok(Self {
            id: row.id.into(),
            counter: row.counter_id.into(),
            meter: meter(&row.meter, "quota_alerts.meter")?,
            period: Period {
                start: row.period_start,
                end: row.period_end,
            },
            threshold: Threshold {
                base,
                percent: row.percent.unsigned_abs(),
                amount: row.amount.unsigned_abs(),
            },
            used: row.used.unsigned_abs(),
            created_at: row.created_at,
            told_at: row.told_at,
        })
    }
}
