use async_trait::async_trait;
use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict};
use sea_orm::{
    ActiveValue::{NotSet, Set},
    ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, QueryTrait as _,
};
use tenantry_domain::billing::{
    CustomerRef, EventRef, EventState, ProviderEvent, ProviderEvents, ReceivedEvent, SubscriptionRef,
};
use tenantry_domain::identity::Email;
use tenantry_domain::kernel::{StoreError, SystemScope, TenantId, Time};
use tenantry_domain::operations::SystemJob;
use tenantry_domain::store::Mode;

use crate::Pool;
use crate::kernel::error::column;
use crate::kernel::store::{exactly_one, unknown};
use crate::kernel::tx::PlatformTx;
use crate::operations::job::signed;
use crate::operations::system_job::insertion;

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "provider_events")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: String,
        pub kind: String,
        pub created_at: DateTimeUtc,
        pub object: Option<String>,
        pub object_id: Option<String>,
        pub customer_ref: Option<String>,
        pub subscription_ref: Option<String>,
        pub body: Option<Vec<u8>>,
        pub received_at: DateTimeUtc,
        pub state: String,
        pub reason: Option<String>,
        pub attempts: i32,
        pub settled_at: Option<DateTimeUtc>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}
use entity::{ActiveModel, Column, Entity, Model};

/// The inbox of the payment provider's events, as the platform role; the runtime role has no grant on it.
#[derive(Debug, Clone)]
pub struct PgProviderEvents {
    platform: Pool,
}

impl PgProviderEvents {
    /// An inbox over a pool of the platform role.
    pub fn new(platform: Pool) -> Self {
        Self { platform }
    }
}

const LOOKED_UNTIL: &str = "SELECT looked_until FROM provider_watermark";

/// It never goes back.
const LOOK_UNTIL: &str = "\
INSERT INTO provider_watermark (looked_until) VALUES ($1)
ON CONFLICT (id) DO UPDATE SET looked_until = greatest(provider_watermark.looked_until, excluded.looked_until)";

/// `$1` the tenant, `$2` addresses. An address is ASCII, and so is the same in a message and in its text here.
const CLEAR_BODIES_OF: &str = "\
WITH named AS MATERIALIZED (\
SELECT e.id, e.state FROM provider_events e WHERE e.body IS NOT NULL AND e.customer_ref IN (\
SELECT unnest(array_append(c.former_refs, c.customer_ref)) FROM provider_customers c WHERE c.of_tenant = $1) \
AND EXISTS (SELECT FROM jsonb_array_elements_text($2::text::jsonb) a WHERE position(a IN lower(encode(e.body, 'escape'))) > 0)), \
cleared AS (UPDATE provider_events e SET body = NULL FROM named n WHERE e.id = n.id AND n.state <> 'pending' RETURNING e.id) \
SELECT count(*) FILTER (WHERE n.state = 'pending') AS pending FROM named n";

#[async_trait]
impl ProviderEvents for PgProviderEvents {
    async fn receive(
        &self,
        because: SystemScope,
        event: &ReceivedEvent,
        job: Option<&SystemJob>,
    ) -> Result<bool, StoreError> {
        let nothing = OnConflict::new().do_nothing().to_owned();
        let insert = sea_orm::Insert::one(row(event)).on_conflict(nothing);
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        let is_new = tx.execute(&insert.into_query()).await? == 1;
        if let Some(job) = job.filter(|_| is_new) {
            tx.execute(&insertion(job)).await?;
        }
        tx.commit().await?;
        Ok(is_new)
    }

    async fn begin(&self, because: SystemScope, id: &EventRef) -> Result<Option<ReceivedEvent>, StoreError> {
        let count = Entity::update_many()
            .col_expr(Column::Attempts, Expr::col(Column::Attempts).add(1))
            .filter(Column::Id.eq(id.as_str()));
        let find = Entity::find().filter(Column::Id.eq(id.as_str()));
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        tx.execute(&count.into_query()).await?;
        let rows = tx.fetch::<Entity>(&find.into_query()).await?;
        tx.commit().await?;
        rows.into_iter().next().map(ReceivedEvent::try_from).transpose()
    }

    async fn settle(
        &self,
        because: SystemScope,
        id: &EventRef,
        (state, reason): (EventState, Option<&str>),
        at: Time,
    ) -> Result<(), StoreError> {
        let settled = ActiveModel {
            state: Set(state.as_str().to_owned()),
            reason: Set(reason.map(storable)),
            settled_at: Set((state != EventState::Pending).then_some(at)),
            body: match state {
                EventState::Done | EventState::Ignored => Set(None),
                EventState::Pending | EventState::Dead => NotSet,
            },
            ..Default::default()
        };
        let update = Entity::update_many()
            .set(settled)
            .filter(Column::Id.eq(id.as_str()));
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        exactly_one(tx.execute(&update.into_query()).await?)?;
        tx.commit().await
    }

    async fn list(
        &self,
        because: SystemScope,
        state: Option<EventState>,
        limit: u32,
    ) -> Result<Vec<ReceivedEvent>, StoreError> {
        let mut find = Entity::find()
            .order_by_desc(Column::ReceivedAt)
            .order_by_desc(Column::Id);
        if let Some(state) = state {
            find = find.filter(Column::State.eq(state.as_str()));
        }
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let rows = tx
            .fetch::<Entity>(&find.limit(u64::from(limit)).into_query())
            .await?;
        tx.commit().await?;
        rows.into_iter().map(ReceivedEvent::try_from).collect()
    }

    async fn looked_until(&self, because: SystemScope) -> Result<Option<Time>, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let rows = tx.fetch_fixed(LOOKED_UNTIL, []).await?;
        tx.commit().await?;
        rows.first().map(|row| column(row, "looked_until")).transpose()
    }

    async fn look_until(&self, because: SystemScope, at: Time) -> Result<(), StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        tx.fetch_fixed(LOOK_UNTIL, [at.into()]).await?;
        tx.commit().await
    }

    async fn clear_bodies_of(
        &self,
        because: SystemScope,
        tenant: TenantId,
        addresses: &[Email],
    ) -> Result<u64, StoreError> {
        let addresses = serde_json::json!(addresses).to_string();
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        let arguments = [tenant.uuid().into(), addresses.into()];
        let rows = tx.fetch_fixed(CLEAR_BODIES_OF, arguments).await?;
        tx.commit().await?;
        let pending: i64 = rows.first().map_or(Ok(0), |row| column(row, "pending"))?;
        Ok(pending.unsigned_abs())
    }

    async fn clear_bodies(&self, because: SystemScope, before: Time) -> Result<u64, StoreError> {
        let forgotten = ActiveModel {
            body: Set(None),
            ..Default::default()
        };
        let update = Entity::update_many()
            .set(forgotten)
            .filter(Column::Body.is_not_null())
            .filter(Column::SettledAt.lt(before));
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Write).await?;
        let rows = tx.execute(&update.into_query()).await?;
        tx.commit().await?;
        Ok(rows)
    }
}

/// PostgreSQL's text cannot hold NUL, and a reason that cannot be stored would keep the event for ever.
fn storable(reason: &str) -> String {
    reason.chars().filter(|c| *c != '\0').take(1_000).collect()
}

fn row(received: &ReceivedEvent) -> ActiveModel {
    let event = &received.event;
    ActiveModel {
        id: Set(event.id.to_string()),
        kind: Set(event.kind.clone()),
        created_at: Set(event.created_at),
        object: Set(event.object.clone()),
        object_id: Set(event.object_id.clone()),
        customer_ref: Set(event.customer.as_ref().map(ToString::to_string)),
        subscription_ref: Set(event.subscription.as_ref().map(ToString::to_string)),
        body: Set(received.body.clone()),
        received_at: Set(received.received_at),
        state: Set(received.state.as_str().to_owned()),
        reason: Set(received.reason.clone()),
        attempts: Set(signed(received.attempts)),
        settled_at: Set(received.settled_at),
    }
}

impl TryFrom<Model> for ReceivedEvent {
    type Error = StoreError;

    fn try_from(row: Model) -> Result<Self, StoreError> {
        let id = EventRef::parse(&row.id).ok_or_else(|| unknown("provider_events.id", &row.id))?;
        let state =
            EventState::parse(&row.state).ok_or_else(|| unknown("provider_events.state", &row.state))?;
        Ok(Self {
            event: ProviderEvent {
                id,
                kind: row.kind,
                created_at: row.created_at,
                object: row.object,
                object_id: row.object_id,
                customer: row.customer_ref.as_deref().and_then(CustomerRef::parse),
                subscription: row.subscription_ref.as_deref().and_then(SubscriptionRef::parse),
            },
            body: row.body,
            received_at: row.received_at,
            state,
            reason: row.reason,
            attempts: row.attempts.unsigned_abs(),
            settled_at: row.settled_at,
        })
    }
}
