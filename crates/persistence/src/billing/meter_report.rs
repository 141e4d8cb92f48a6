use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _, Condition};
use tenantry_domain::billing::{MeterReport, MeterReports, ProviderKey, ReportState};
use tenantry_domain::kernel::{Period, StoreError};
use tenantry_domain::usage::MeterKey;

use crate::kernel::store::{PgStore, meter, unknown};
use crate::operations::job::signed;

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "meter_outbox")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub meter: String,
        pub hour: DateTimeUtc,
        pub revision: i64,
        pub quantity: i64,
        pub identifier: String,
        pub state: String,
        pub attempts: i32,
        pub reason: Option<String>,
        pub sent_at: Option<DateTimeUtc>,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

#[async_trait]
impl MeterReports for PgStore {
    async fn newest(&mut self, meter: &MeterKey, period: Period) -> Result<Vec<MeterReport>, StoreError> {
        let mut newest: Vec<MeterReport> = Vec::new();
        for report in MeterReports::list(self, meter, period).await? {
            if newest.last().is_some_and(|last| last.hour == report.hour) {
                newest.pop();
            }
            newest.push(report);
        }
        Ok(newest)
    }

    async fn list(&mut self, meter: &MeterKey, period: Period) -> Result<Vec<MeterReport>, StoreError> {
        let within = Condition::all()
            .add(Column::Meter.eq(meter.as_str()))
            .add(Column::Hour.gte(period.start))
            .add(Column::Hour.lt(period.end));
        let find = self.tx.find::<Entity>().filter(within);
        let rows = find
            .order_by_asc(Column::Hour)
            .order_by_asc(Column::Revision)
            .all()
            .await?;
        rows.into_iter().map(MeterReport::try_from).collect()
    }

    async fn in_state(&mut self, state: ReportState, limit: u32) -> Result<Vec<MeterReport>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::State.eq(state.as_str()));
        let find = find.order_by_asc(Column::Hour).order_by_asc(Column::Id);
        let rows = find.limit(u64::from(limit)).all().await?;
        rows.into_iter().map(MeterReport::try_from).collect()
    }

    async fn insert_unless_there(&mut self, report: &MeterReport) -> Result<bool, StoreError> {
        let quantity = i64::try_from(report.quantity);
        let row = ActiveModel {
            id: Set(report.id.uuid()),
            created_at: Set(report.created_at),
            meter: Set(report.meter.to_string()),
            hour: Set(report.hour),
            revision: Set(report.revision),
            quantity: Set(quantity.map_err(|error| StoreError::Other(error.to_string()))?),
            identifier: Set(report.identifier.to_string()),
            ..changes(report)
        };
        self.tx.insert_unless_there(row).await
    }

    async fn update(&mut self, report: &MeterReport, was: ReportState) -> Result<bool, StoreError> {
        let update = self.tx.update::<Entity>().set(changes(report));
        let stands = update
            .filter(Column::Id.eq(report.id.uuid()))
            .filter(Column::State.eq(was.as_str()));
        Ok(stands.run().await? == 1)
    }
}

impl TryFrom<Model> for MeterReport {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let unknown = |column, text: &str| unknown(column, text);
        Ok(Self {
            id: row.id.into(),
            meter: meter(&row.meter, "meter_outbox.meter")?,
            hour: row.hour,
            revision: row.revision,
            quantity: row.quantity.unsigned_abs(),
            identifier: ProviderKey::parse(&row.identifier)
                .ok_or_else(|| unknown("meter_outbox.identifier", &row.identifier))?,
            state: ReportState::parse(&row.state).ok_or_else(|| unknown("meter_outbox.state", &row.state))?,
            attempts: row.attempts.unsigned_abs(),
            reason: row.reason,
            created_at: row.created_at,
            sent_at: row.sent_at,
        })
    }
}

/// All columns that may change.
fn changes(report: &MeterReport) -> ActiveModel {
    ActiveModel {
        state: Set(report.state.as_str().to_owned()),
        attempts: Set(signed(report.attempts)),
        reason: Set(report.reason.clone()),
        sent_at: Set(report.sent_at),
        ..Default::default()
    }
}
