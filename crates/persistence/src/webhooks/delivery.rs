use async_trait::async_trait;
use chrono::DateTime;
use sea_orm::{ColumnTrait as _, QueryResult};
use serde_json::{Value, json};
use tenantry_domain::kernel::{EventId, Page, PageRequest, Position, StoreError, Time, WebhookEndpointId};
use tenantry_domain::webhooks::{
    AttemptLatency, AttemptResult, DeliveryState, DeliveryStats, DueDelivery, MessageDelivery,
    RecordedAttempt, Recovery, TEST_MESSAGE, WebhookDeliveries, WebhookMessage,
};
use uuid::Uuid;

use crate::kernel::error::column;
use crate::kernel::store::{PgStore, unknown};

mod entity {
    use sea_orm::entity::prelude::*;

    #[sea_orm::model]
    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "webhook_deliveries")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub tenant_id: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: Uuid,
        pub created_at: DateTimeUtc,
        pub endpoint_id: Uuid,
        pub message_id: Uuid,
        pub kind: String,
        pub body: Option<Json>,
        pub state: String,
        pub attempts: i32,
        pub next_attempt_at: Option<DateTimeUtc>,
    }

    impl ActiveModelBehavior for ActiveModel {}
    crate::tenant_entity!(Entity, Model, Column);
}
use entity::{Column, Entity, Model};

/// The condition that an endpoint `p` gets an event `e`. An empty list is every type; `project.*` is every type below `project`.
macro_rules! wanted {
    () => {
        "p.enabled AND (p.event_types = '[]' OR EXISTS (SELECT 1 FROM jsonb_array_elements_text(p.event_types) AS t (pattern) \
         WHERE t.pattern = e.kind OR (right(t.pattern, 2) = '.*' AND starts_with(e.kind, left(t.pattern, -1)))))"
    };
}

/// `$2` how many events were published last, `$3` now. A statement after the one that has published them, in its transaction. The endpoints are
/// locked against their deletion.
const QUEUE_PUBLISHED: &str = concat!(
    "WITH found AS (SELECT e.id, e.created_at, e.kind, e.position, p.id AS endpoint_id FROM events e \
     JOIN webhook_endpoints p ON p.tenant_id = $1 AND ",
    wanted!(),
    " WHERE e.tenant_id = $1 AND e.position > (SELECT max(n.position) - $2 FROM events n WHERE n.tenant_id = $1) \
     FOR KEY SHARE OF p), \
     queued AS (INSERT INTO webhook_deliveries (tenant_id, created_at, message_id, endpoint_id, kind, position, state, next_attempt_at) \
     SELECT $1, f.created_at, f.id, f.endpoint_id, f.kind, f.position, 'pending', $3 FROM found f ON CONFLICT DO NOTHING RETURNING endpoint_id) \
     SELECT q.endpoint_id, count(*) AS queued FROM queued q GROUP BY q.endpoint_id"
);

/// `$2` the message, `$3` the endpoint, `$4` its type, `$5` its data, `$6` now.
const QUEUE_TEST: &str = "\
INSERT INTO webhook_deliveries (\"tenant_id\", created_at, message_id, endpoint_id, kind, position, body, state, once, next_attempt_at) \
VALUES ($1, $6, $2, $3, $4, 0, $5::text::jsonb, 'pending', true, $6) RETURNING id";

/// `$2` the message, `$3` the endpoint, `$4` now. A test has no event: its delivery is there already, and is tried once more.
const RESEND_STORED: &str = "\
UPDATE webhook_deliveries d SET state = 'pending', tries = 0, next_attempt_at = $4 \
WHERE d.tenant_id = $1 AND d.message_id = $2 AND d.endpoint_id = $3 RETURNING d.id";

/// The same for an event that was never queued for the endpoint, whatever its filter says.
const RESEND_EVENT: &str = "\
INSERT INTO webhook_deliveries (\"tenant_id\", created_at, message_id, endpoint_id, kind, position, state, next_attempt_at) \
SELECT $1, e.created_at, e.id, $3, e.kind, e.position, 'pending', $4 FROM events e WHERE e.tenant_id = $1 AND e.id = $2 \
ON CONFLICT DO NOTHING RETURNING id";

/// `$2` the endpoint, `$3` since when, `$4` until when, `$5` how many, `$6` now. What is pending or delivered stays as it is.
const RECOVER: &str = concat!(
    "INSERT INTO webhook_deliveries (\"tenant_id\", created_at, message_id, endpoint_id, kind, position, state, next_attempt_at) \
     SELECT $1, e.created_at, e.id, p.id, e.kind, e.position, 'pending', $6 FROM events e \
     JOIN webhook_endpoints p ON p.tenant_id = $1 AND p.id = $2 AND ",
    wanted!(),
    " WHERE e.tenant_id = $1 AND e.created_at >= $3 AND e.created_at <= $4 \
     AND NOT EXISTS (SELECT 1 FROM webhook_deliveries o WHERE o.tenant_id = $1 AND o.message_id = e.id AND o.endpoint_id = $2 \
      AND o.state IN ('pending', 'succeeded')) \
     ORDER BY e.created_at, e.id LIMIT $5 \
     ON CONFLICT (tenant_id, message_id, endpoint_id) DO UPDATE SET state = 'pending', tries = 0, next_attempt_at = EXCLUDED.next_attempt_at \
     WHERE webhook_deliveries.tenant_id = $1 AND webhook_deliveries.state IN ('failed', 'canceled') RETURNING id"
);

macro_rules! due_columns {
    () => {
        "SELECT d.id, d.message_id, d.kind, d.created_at, d.tries, d.once, d.next_attempt_at, coalesce(d.body, e.data) AS data \
         FROM webhook_deliveries d LEFT JOIN events e ON e.tenant_id = $1 AND e.id = d.message_id \
         WHERE d.tenant_id = $1 AND d.endpoint_id = $2 AND d.state = 'pending'"
    };
}

/// `$2` the endpoint, `$3` now, `$4` how many, `$5` those that are in flight, as a list in JSON.
const DUE: &str = concat!(
    due_columns!(),
    " AND d.next_attempt_at <= $3 AND d.id NOT IN (SELECT x.id::uuid FROM jsonb_array_elements_text($5::text::jsonb) AS x (id)) \
     ORDER BY d.next_attempt_at, d.position LIMIT $4"
);

/// `$2` the endpoint.
const FIRST: &str = concat!(due_columns!(), " ORDER BY d.position, d.id LIMIT 1");

/// `$2` the results, as a list in JSON. A message that was delivered after its cancellation counts as delivered.
const STORE: &str = "\
WITH results AS (SELECT r.* FROM jsonb_to_recordset($2::text::jsonb) AS r (delivery uuid, at timestamptz, outcome text, detail text, \
 status integer, latency_ms integer, excerpt text, state text, next timestamptz)), \
updated AS (UPDATE webhook_deliveries d SET attempts = d.attempts + 1, tries = d.tries + 1, \
 state = CASE WHEN d.state = 'pending' OR r.state = 'succeeded' THEN r.state ELSE d.state END, \
 next_attempt_at = CASE WHEN d.state = 'pending' THEN r.next ELSE NULL END \
 FROM results r WHERE d.tenant_id = $1 AND d.id = r.delivery RETURNING d.id, d.endpoint_id, d.attempts), \
stored AS (INSERT INTO webhook_attempts (tenant_id, created_at, delivery_id, endpoint_id, number, outcome, detail, status, latency_ms, excerpt) \
 SELECT $1, r.at, u.id, u.endpoint_id, u.attempts, r.outcome, r.detail, r.status, r.latency_ms, r.excerpt \
 FROM results r JOIN updated u ON u.id = r.delivery RETURNING id) \
SELECT count(*) AS stored FROM stored";

/// `$2` the endpoint, `$3` how many.
const CANCEL: &str = "\
WITH queued AS (SELECT q.id FROM webhook_deliveries q WHERE q.tenant_id = $1 AND q.endpoint_id = $2 AND q.state = 'pending' LIMIT $3), \
canceled AS (UPDATE webhook_deliveries d SET state = 'canceled', next_attempt_at = NULL \
 FROM queued WHERE d.tenant_id = $1 AND d.id = queued.id RETURNING d.id) \
SELECT count(*) AS canceled FROM canceled";

/// `$2` which, as a list in JSON.
const CANCEL_THESE: &str = "\
WITH canceled AS (UPDATE webhook_deliveries d SET state = 'canceled', next_attempt_at = NULL \
 WHERE d.tenant_id = $1 AND d.state = 'pending' AND d.id IN (SELECT x.id::uuid FROM jsonb_array_elements_text($2::text::jsonb) AS x (id)) \
 RETURNING d.id) SELECT count(*) AS canceled FROM canceled";

/// `$2` the endpoint, `$3` and `$4` behind which attempt, `$5` how many.
const ATTEMPTS: &str = "\
SELECT a.id, a.created_at, a.number, a.outcome, a.detail, a.status, a.latency_ms, a.excerpt, d.message_id, d.kind, d.state, \
 d.next_attempt_at \
FROM webhook_attempts a JOIN webhook_deliveries d ON d.tenant_id = $1 AND d.id = a.delivery_id \
WHERE a.tenant_id = $1 AND a.endpoint_id = $2 AND (a.created_at, a.id) < ($3, $4) \
ORDER BY a.created_at DESC, a.id DESC LIMIT $5";

/// `$2` the endpoint, `$3` since when.
const COUNTS: &str = "\
SELECT count(*) FILTER (WHERE d.state = 'pending') AS pending, count(*) FILTER (WHERE d.state = 'succeeded') AS succeeded, \
 count(*) FILTER (WHERE d.state = 'failed') AS failed, count(*) FILTER (WHERE d.state = 'canceled') AS canceled \
FROM webhook_deliveries d WHERE d.tenant_id = $1 AND d.endpoint_id = $2 AND d.created_at >= $3";

/// `$2` the endpoint, `$3` since when. Of the latest attempts, so that many cost no more.
const LATENCY: &str = "\
SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY l.latency_ms) AS p50, percentile_disc(0.95) WITHIN GROUP (ORDER BY l.latency_ms) AS p95, \
 percentile_disc(0.99) WITHIN GROUP (ORDER BY l.latency_ms) AS p99 \
FROM (SELECT a.latency_ms FROM webhook_attempts a WHERE a.tenant_id = $1 AND a.endpoint_id = $2 AND a.created_at >= $3 \
 ORDER BY a.created_at DESC, a.id DESC LIMIT 1000) AS l";

/// `$2` and `$3` behind which message, `$4` how many.
const MESSAGES: &str = "\
SELECT d.created_at, d.message_id, min(d.kind) AS kind FROM webhook_deliveries d \
WHERE d.tenant_id = $1 AND (d.created_at, d.message_id) < ($2, $3) \
GROUP BY d.created_at, d.message_id ORDER BY d.created_at DESC, d.message_id DESC LIMIT $4";

/// `$2` the message.
const DATA: &str = "SELECT e.data FROM events e WHERE e.tenant_id = $1 AND e.id = $2";

/// `$2` before when, `$3` how many. Attempts go with their deliveries.
const DELETE_BEFORE: &str = "\
WITH outdated AS (SELECT o.id FROM webhook_deliveries o WHERE o.tenant_id = $1 AND o.created_at < $2 \
  AND NOT EXISTS (SELECT 1 FROM events e WHERE e.tenant_id = $1 AND e.id = o.message_id) ORDER BY o.created_at, o.id LIMIT $3), \
gone AS (DELETE FROM webhook_deliveries d USING outdated WHERE d.tenant_id = $1 AND d.id = outdated.id RETURNING d.id) \
SELECT count(*) AS deleted FROM gone";

/// `$2` the endpoint, `$3` how many.
const DELETE_OF_REMOVED: &str = "\
WITH removed AS (SELECT o.id FROM webhook_deliveries o JOIN webhook_endpoints p ON p.tenant_id = $1 AND p.id = o.endpoint_id \
  AND p.deleted_at IS NOT NULL WHERE o.tenant_id = $1 AND o.endpoint_id = $2 LIMIT $3), \
gone AS (DELETE FROM webhook_deliveries d USING removed WHERE d.tenant_id = $1 AND d.id = removed.id RETURNING d.id) \
SELECT count(*) AS deleted FROM gone";

#[async_trait]
impl WebhookDeliveries for PgStore {
    async fn queue_published(&mut self, published: u64, now: Time) -> Result<u64, StoreError> {
        let published = i64::try_from(published).unwrap_or(i64::MAX);
        let arguments = [published.into(), now.into()];
        let rows = self.tx.fetch_all_fixed(QUEUE_PUBLISHED, arguments).await?;
        let (mut queued, mut endpoints) = (0, Vec::with_capacity(rows.len()));
        for row in &rows {
            queued += column::<i64>(row, "queued")?.unsigned_abs();
            endpoints.push(column::<Uuid>(row, "endpoint_id")?);
        }
        self.make_due(&endpoints, now).await?;
        Ok(queued)
    }

    async fn queue_test(
        &mut self,
        message: EventId,
        endpoint: WebhookEndpointId,
        data: &Value,
        now: Time,
    ) -> Result<(), StoreError> {
        let arguments = [
            message.uuid().into(),
            endpoint.uuid().into(),
            TEST_MESSAGE.into(),
            data.to_string().into(),
            now.into(),
        ];
        self.tx.fetch_fixed(QUEUE_TEST, arguments).await?;
        self.make_due(&[endpoint.uuid()], now).await
    }

    async fn resend(
        &mut self,
        message: EventId,
        endpoint: WebhookEndpointId,
        now: Time,
    ) -> Result<bool, StoreError> {
        let arguments = || [message.uuid().into(), endpoint.uuid().into(), now.into()];
        let mut found = self.tx.fetch_fixed(RESEND_STORED, arguments()).await?;
        if found.is_none() {
            found = self.tx.fetch_fixed(RESEND_EVENT, arguments()).await?;
        }
        if found.is_some() {
            self.make_due(&[endpoint.uuid()], now).await?;
        }
        Ok(found.is_some())
    }

    async fn recover(&mut self, recovery: &Recovery, limit: u32, now: Time) -> Result<u64, StoreError> {
        let endpoint = recovery.endpoint.uuid();
        let arguments = [
            endpoint.into(),
            recovery.since.into(),
            recovery.until.into(),
            i64::from(limit).into(),
            now.into(),
        ];
        let queued = self.tx.fetch_all_fixed(RECOVER, arguments).await?.len();
        if queued > 0 {
            self.make_due(&[endpoint], now).await?;
        }
        Ok(queued as u64)
    }

    async fn due(
        &mut self,
        endpoint: WebhookEndpointId,
        (limit, except): (u32, &[Uuid]),
        now: Time,
    ) -> Result<Vec<DueDelivery>, StoreError> {
        let arguments = [
            endpoint.uuid().into(),
            now.into(),
            i64::from(limit).into(),
            json!(except).to_string().into(),
        ];
        let rows = self.tx.fetch_all_fixed(DUE, arguments).await?;
        rows.iter().map(due_delivery).collect()
    }

    async fn first(&mut self, endpoint: WebhookEndpointId) -> Result<Option<DueDelivery>, StoreError> {
        let row = self.tx.fetch_fixed(FIRST, [endpoint.uuid().into()]).await?;
        row.as_ref().map(due_delivery).transpose()
    }

    async fn store(&mut self, results: &[AttemptResult]) -> Result<(), StoreError> {
        let results: Vec<Value> = results.iter().map(result_json).collect();
        let arguments = [json!(results).to_string().into()];
        self.tx.fetch_fixed(STORE, arguments).await.map(drop)
    }

    async fn cancel(&mut self, endpoint: WebhookEndpointId, limit: u32) -> Result<u64, StoreError> {
        let arguments = [endpoint.uuid().into(), i64::from(limit).into()];
        count(self.tx.fetch_fixed(CANCEL, arguments).await?, "canceled")
    }

    async fn cancel_these(&mut self, deliveries: &[Uuid]) -> Result<u64, StoreError> {
        let arguments = [json!(deliveries).to_string().into()];
        count(self.tx.fetch_fixed(CANCEL_THESE, arguments).await?, "canceled")
    }

    async fn attempts(
        &mut self,
        endpoint: WebhookEndpointId,
        page: PageRequest,
    ) -> Result<Page<RecordedAttempt>, StoreError> {
        let after = behind(page);
        let arguments = [
            endpoint.uuid().into(),
            after.created_at.into(),
            after.id.into(),
            (i64::from(page.limit) + 1).into(),
        ];
        let rows = self.tx.fetch_all_fixed(ATTEMPTS, arguments).await?;
        let attempts = rows.iter().map(recorded).collect::<Result<_, _>>()?;
        Ok(Page::from_rows(attempts, page, |attempt| Position {
            created_at: attempt.at,
            id: attempt.id,
        }))
    }

    async fn stats(&mut self, endpoint: WebhookEndpointId, since: Time) -> Result<DeliveryStats, StoreError> {
        let arguments = || [endpoint.uuid().into(), since.into()];
        let Some(row) = self.tx.fetch_fixed(COUNTS, arguments()).await? else {
            return Ok(DeliveryStats::default());
        };
        let number = |name| column::<i64>(&row, name).map(i64::unsigned_abs);
        let latency = self.tx.fetch_fixed(LATENCY, arguments()).await?;
        Ok(DeliveryStats {
            pending: number("pending")?,
            succeeded: number("succeeded")?,
            failed: number("failed")?,
            canceled: number("canceled")?,
            latency: latency.map(|row| percentiles(&row)).transpose()?.flatten(),
        })
    }

    async fn messages(&mut self, page: PageRequest) -> Result<Page<WebhookMessage>, StoreError> {
        let after = behind(page);
        let arguments = [
            after.created_at.into(),
            after.id.into(),
            (i64::from(page.limit) + 1).into(),
        ];
        let rows = self.tx.fetch_all_fixed(MESSAGES, arguments).await?;
        let messages = rows.iter().map(message).collect::<Result<Vec<_>, _>>()?;
        let mut page = Page::from_rows(messages, page, |message| Position {
            created_at: message.at,
            id: message.id.uuid(),
        });
        let ids = page.items.iter().map(|message| message.id.uuid());
        let find = self.tx.find::<Entity>().filter(Column::MessageId.is_in(ids));
        for row in find.order_by_asc(Column::EndpointId).all().await? {
            let of = page
                .items
                .iter_mut()
                .find(|message| message.id.uuid() == row.message_id);
            if let Some(message) = of {
                message.deliveries.push(delivery(row)?);
            }
        }
        Ok(page)
    }

    async fn message(&mut self, id: EventId) -> Result<Option<(WebhookMessage, Option<Value>)>, StoreError> {
        let find = self.tx.find::<Entity>().filter(Column::MessageId.eq(id.uuid()));
        let rows = find.order_by_asc(Column::EndpointId).all().await?;
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        let mut message = WebhookMessage {
            id,
            kind: first.kind.clone(),
            at: first.created_at,
            deliveries: Vec::with_capacity(rows.len()),
        };
        let mut data = first.body.clone();
        if data.is_none() {
            let row = self.tx.fetch_fixed(DATA, [id.uuid().into()]).await?;
            data = row.map(|row| column::<Value>(&row, "data")).transpose()?;
        }
        for row in rows {
            message.deliveries.push(delivery(row)?);
        }
        Ok(Some((message, data)))
    }

    async fn delete_before(&mut self, before: Time, limit: u32) -> Result<u64, StoreError> {
        let arguments = [before.into(), i64::from(limit).into()];
        count(self.tx.fetch_fixed(DELETE_BEFORE, arguments).await?, "deleted")
    }

    async fn delete_of_removed(
        &mut self,
        endpoint: WebhookEndpointId,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let arguments = [endpoint.uuid().into(), i64::from(limit).into()];
        count(
            self.tx.fetch_fixed(DELETE_OF_REMOVED, arguments).await?,
            "deleted",
        )
    }
}

/// Where a page begins; the first one begins after every time.
fn behind(page: PageRequest) -> Position {
    page.after.unwrap_or(Position {
        // The last second of the year 9999.
        created_at: DateTime::from_timestamp(253_402_300_799, 0).unwrap_or(Time::MAX_UTC),
        id: Uuid::max(),
    })
}

fn count(row: Option<QueryResult>, name: &str) -> Result<u64, StoreError> {
    let count = row.map(|row| column::<i64>(&row, name)).transpose()?;
    Ok(count.unwrap_or_default().unsigned_abs())
}

fn number(row: &QueryResult, name: &str) -> Result<u32, StoreError> {
    column::<i32>(row, name).map(i32::unsigned_abs)
}

fn state(text: &str) -> Result<DeliveryState, StoreError> {
    DeliveryState::parse(text).ok_or_else(|| unknown("webhook_deliveries.state", text))
}

fn due_delivery(row: &QueryResult) -> Result<DueDelivery, StoreError> {
    Ok(DueDelivery {
        id: column(row, "id")?,
        message: column::<Uuid>(row, "message_id")?.into(),
        kind: column(row, "kind")?,
        at: column(row, "created_at")?,
        tries: number(row, "tries")?,
        once: column(row, "once")?,
        due_at: column(row, "next_attempt_at")?,
        data: column(row, "data")?,
    })
}

fn result_json(result: &AttemptResult) -> Value {
    let answer = result.outcome.answer();
    json!({
        "delivery": result.delivery,
        "at": result.at,
        "outcome": result.outcome.name(),
        "detail": result.outcome.detail(),
        "status": answer.map(|answer| answer.status),
        "latency_ms": i32::try_from(result.latency.as_millis()).unwrap_or(i32::MAX),
        "excerpt": answer.map(|answer| &answer.excerpt),
        "state": result.state.as_str(),
        "next": result.next,
    })
}

fn recorded(row: &QueryResult) -> Result<RecordedAttempt, StoreError> {
    let status: Option<i32> = column(row, "status")?;
    Ok(RecordedAttempt {
        id: column(row, "id")?,
        message: column::<Uuid>(row, "message_id")?.into(),
        kind: column(row, "kind")?,
        number: number(row, "number")?,
        at: column(row, "created_at")?,
        outcome: column(row, "outcome")?,
        detail: column(row, "detail")?,
        status: status.and_then(|status| u16::try_from(status).ok()),
        latency_ms: number(row, "latency_ms")?,
        excerpt: column(row, "excerpt")?,
        state: state(&column::<String>(row, "state")?)?,
        next: column(row, "next_attempt_at")?,
    })
}

fn percentiles(row: &QueryResult) -> Result<Option<AttemptLatency>, StoreError> {
    let of = |name| column::<Option<i32>>(row, name).map(|value| value.map(i32::unsigned_abs));
    let (p50, p95, p99) = (of("p50")?, of("p95")?, of("p99")?);
    let latency = p50.zip(p95).zip(p99);
    Ok(latency.map(|((p50_ms, p95_ms), p99_ms)| AttemptLatency {
        p50_ms,
        p95_ms,
        p99_ms,
    }))
}

fn message(row: &QueryResult) -> Result<WebhookMessage, StoreError> {
    Ok(WebhookMessage {
        id: column::<Uuid>(row, "message_id")?.into(),
        kind: column(row, "kind")?,
        at: column(row, "created_at")?,
        deliveries: Vec::new(),
    })
}

fn delivery(row: Model) -> Result<MessageDelivery, StoreError> {
    Ok(MessageDelivery {
        endpoint: row.endpoint_id.into(),
        state: state(&row.state)?,
        attempts: row.attempts.unsigned_abs(),
        next: row.next_attempt_at,
    })
}
