use std::collections::HashMap;

use async_trait::async_trait;
use sea_orm::{ActiveValue::Set, ColumnTrait as _};
use tenantry_domain::kernel::{AuditEventId, Page, PageRequest, SecurityAlertId, StoreError, Time, UserId};
use tenantry_domain::security::{
    Alert, AlertAction, AlertFilter, AlertState, Alerts, Severity, Subject, SubjectKind,
};

use crate::kernel::store::{PgStore, exactly_one, unknown};
use crate::kernel::tx::Lock;

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "security_alerts")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub rule: String,
        pub subject_kind: String,
        pub subject: String,
        pub count: i64,
        pub first_at: DateTimeUtc,
        pub last_at: DateTimeUtc,
        pub severity: String,
        pub state: String,
        pub evidence: Json,
        pub action: String,
        pub acted_at: Option<DateTimeUtc>,
        pub acknowledged_at: Option<DateTimeUtc>,
        pub acknowledged_by: Option<Uuid>,
        pub note: Option<String>,
        pub open_key: Option<String>,
    }

    crate::tenant_entity!(Entity, Model, ActiveModel, Column);
}
use entity::{ActiveModel, Column, Entity, Model};

#[async_trait]
impl Alerts for PgStore {
    async fn find(&mut self, id: SecurityAlertId) -> Result<Option<Alert>, StoreError> {
        let row = self.tx.get::<Entity>(id.uuid()).await?;
        row.map(Alert::try_from).transpose()
    }

    async fn find_for_update(&mut self, id: SecurityAlertId) -> Result<Option<Alert>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Id.eq(id.uuid()));
        let row = find.lock(Lock::Update).one().await?;
        row.map(Alert::try_from).transpose()
    }

    async fn list(&mut self, filter: &AlertFilter, page: PageRequest) -> Result<Page<Alert>, StoreError> {
        let mut find = self.tx.find::<Entity>();
        if let Some(state) = filter.state {
            find = find.filter(Column::State.eq(state.as_str()));
        }
        if let Some(rule) = &filter.rule {
            find = find.filter(Column::Rule.eq(rule.as_str()));
        }
        if let Some(severity) = filter.severity {
            find = find.filter(Column::Severity.eq(severity.as_str()));
        }
        find.newest(page).await?.try_map(Alert::try_from)
    }

    async fn open_for_update(&mut self, keys: &[String]) -> Result<HashMap<String, Alert>, StoreError> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let find = self.tx.find::<Entity>();
        let find = find.filter(Column::OpenKey.is_in(keys)).order_by_asc(Column::Id);
        let rows = find.lock(Lock::Update).all().await?;
        let named = rows.into_iter().map(|row| {
            let key = row.open_key.clone().unwrap_or_default();
            Ok((key, Alert::try_from(row)?))
        });
        named.collect()
    }

    async fn count_open(&mut self, rule: &str) -> Result<u64, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::Rule.eq(rule));
        find.filter(Column::State.eq(AlertState::Open.as_str()))
            .count()
            .await
    }

    async fn last_step_up(&mut self, user: UserId) -> Result<Option<Time>, StoreError> {
        let find = self.tx.find::<Entity>();
        let find = find
            .filter(Column::Subject.eq(user.to_string()))
            .filter(Column::SubjectKind.eq(SubjectKind::User.as_str()))
            .filter(Column::Action.eq(AlertAction::StepUp.as_str()))
            .order_by_desc(Column::ActedAt)
            .limit(1);
        Ok(find.one().await?.and_then(|row| row.acted_at))
    }

    async fn insert(&mut self, alert: &Alert) -> Result<(), StoreError> {
        let row = ActiveModel {
            id: Set(alert.id.uuid()),
            created_at: Set(alert.created_at),
            rule: Set(alert.rule.clone()),
            subject_kind: Set(alert.subject.kind.as_str().to_owned()),
            subject: Set(alert.subject.id.clone()),
            severity: Set(alert.severity.as_str().to_owned()),
            ..changes(alert)
        };
        self.tx.insert(row).await
    }

    async fn update(&mut self, alert: &Alert) -> Result<(), StoreError> {
        let update = self.tx.update::<Entity>().set(changes(alert));
        exactly_one(update.filter(Column::Id.eq(alert.id.uuid())).run().await?)
    }

    async fn delete_acknowledged(&mut self, before: Time, at_most: u64) -> Result<u64, StoreError> {
        // The time of creation, which is before that of the acknowledgement, is in an index.
        let find = self.tx.find::<Entity>().filter(Column::CreatedAt.lt(before));
        let find = find.filter(Column::AcknowledgedAt.lt(before));
        let rows = find.order_by_asc(Column::CreatedAt).limit(at_most).all().await?;
        if rows.is_empty() {
            return Ok(0);
        }
        let ids = rows.into_iter().map(|row| row.id);
        let delete = self.tx.delete::<Entity>().filter(Column::Id.is_in(ids));
        delete.run().await
    }
}

fn changes(alert: &Alert) -> ActiveModel {
    let evidence: Vec<String> = alert.evidence.iter().map(ToString::to_string).collect();
    ActiveModel {
        count: Set(alert.count),
        first_at: Set(alert.first_at),
        last_at: Set(alert.last_at),
        state: Set(alert.state.as_str().to_owned()),
        evidence: Set(evidence.into()),
        action: Set(alert.action.as_str().to_owned()),
        acted_at: Set(alert.acted_at),
        acknowledged_at: Set(alert.acknowledged_at),
        acknowledged_by: Set(alert.acknowledged_by.map(UserId::uuid)),
        note: Set(alert.note.clone()),
        open_key: Set((alert.state == AlertState::Open).then(|| alert.open_key())),
        ..Default::default()
    }
}

impl TryFrom<Model> for Alert {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let evidence: Vec<AuditEventId> =
            serde_json::from_value(row.evidence).map_err(|error| StoreError::Other(error.to_string()))?;
        Ok(Self {
            id: row.id.into(),
            created_at: row.created_at,
            rule: row.rule,
            subject: Subject {
                kind: SubjectKind::parse(&row.subject_kind)
                    .ok_or_else(|| unknown("security_alerts.subject_kind", &row.subject_kind))?,
                id: row.subject,
            },
            count: row.count,
            first_at: row.first_at,
            last_at: row.last_at,
            severity: Severity::parse(&row.severity)
                .ok_or_else(|| unknown("security_alerts.severity", &row.severity))?,
            state: AlertState::parse(&row.state)
                .ok_or_else(|| unknown("security_alerts.state", &row.state))?,
            evidence,
            action: AlertAction::parse(&row.action)
                .ok_or_else(|| unknown("security_alerts.action", &row.action))?,
            acted_at: row.acted_at,
            acknowledged_at: row.acknowledged_at,
            acknowledged_by: row.acknowledged_by.map(Into::into),
            note: row.note,
        })
    }
}
