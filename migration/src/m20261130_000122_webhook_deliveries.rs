use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{OnDelete, PLATFORM_ROLE, TenantTable};

/// The deliveries of webhooks, their attempts, and the lane of each endpoint.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        deliveries().create(manager).await?;
        attempts().create(manager).await?;
        lanes().create(manager).await?;
        execute_all(manager, &platform_sql()).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let sql = ["DROP POLICY webhook_lanes_platform_select ON webhook_lanes"];
        execute_all(manager, &sql.map(str::to_owned)).await?;
        lanes().drop(manager).await?;
        attempts().drop(manager).await?;
        deliveries().drop(manager).await
    }
}

/// A message to an endpoint, once. `message_id` is the id of the event, and `created_at` its time; the body is made from the event at each
/// attempt, and only that of a message that is in no feed is stored here. `attempts` counts all attempts and `tries` those since it was queued
/// last.
fn deliveries() -> TenantTable {
    TenantTable::new("webhook_deliveries")
        .generated_id()
        .belongs_to("endpoint_id", "webhook_endpoints", OnDelete::Cascade)
        .column("message_id", "uuid NOT NULL")
        .column("kind", "text NOT NULL")
        .column("position", "bigint NOT NULL")
        .column("body", "jsonb")
        .column("state", "text NOT NULL")
        .column("once", "boolean NOT NULL DEFAULT false")
        .column("attempts", "integer NOT NULL DEFAULT 0")
        .column("tries", "integer NOT NULL DEFAULT 0")
        .column("next_attempt_at", "timestamptz")
        .check(
            "webhook_deliveries_state_check",
            "state IN ('pending', 'succeeded', 'failed', 'canceled') AND (state = 'pending') = (next_attempt_at IS NOT NULL)",
        )
        .check(
            "webhook_deliveries_attempts_check",
            "tries >= 0 AND tries <= attempts AND position >= 0",
        )
        .unique("webhook_deliveries_message_key", &["message_id", "endpoint_id"])
        .index("webhook_deliveries_message_idx", &["created_at", "message_id"])
        .index("webhook_deliveries_endpoint_idx", &["endpoint_id", "created_at"])
        .index_where(
            "webhook_deliveries_due_idx",
            &["endpoint_id", "next_attempt_at", "position"],
            "state = 'pending'",
        )
        .index_where(
            "webhook_deliveries_order_idx",
            &["endpoint_id", "position", "id"],
            "state = 'pending'",
        )
}

/// The attempts of deliveries. `endpoint_id` is that of the delivery.
fn attempts() -> TenantTable {
    TenantTable::new("webhook_attempts")
        .generated_id()
        .belongs_to("delivery_id", "webhook_deliveries", OnDelete::Cascade)
        .column("endpoint_id", "uuid NOT NULL")
        .column("number", "integer NOT NULL")
        .column("outcome", "text NOT NULL")
        .column("detail", "text")
        .column("status", "integer")
        .column("latency_ms", "integer NOT NULL")
        .column("excerpt", "text")
        .check("webhook_attempts_number_check", "number > 0 AND latency_ms >= 0")
        .index(
            "webhook_attempts_endpoint_idx",
            &["endpoint_id", "created_at", "id"],
        )
}

/// The lane of each endpoint that had a delivery: when the next one is due, and which server has leased it.
fn lanes() -> TenantTable {
    TenantTable::new("webhook_lanes")
        .generated_id()
        .belongs_to("endpoint_id", "webhook_endpoints", OnDelete::Cascade)
        .column("due_at", "timestamptz")
        .column("not_before", "timestamptz")
        .column("turn_at", "timestamptz")
        .column("send_window", "integer NOT NULL")
        .column("paced_until", "timestamptz")
        .column("lease_id", "uuid")
        .column("lease_until", "timestamptz")
        .check("webhook_lanes_send_window_check", "send_window > 0")
        .check(
            "webhook_lanes_lease_check",
            "(lease_id IS NULL) = (lease_until IS NULL)",
        )
        .unique("webhook_lanes_endpoint_key", &["endpoint_id"])
        .index_where("webhook_lanes_due_idx", &["due_at"], "due_at IS NOT NULL")
}

/// The platform role looks for tenants with a lane that is due, and sees which, since when, whose turn it is and how wide it is. It sees neither endpoints nor
/// messages, and changes nothing.
fn platform_sql() -> Vec<String> {
    vec![
        format!(
            "CREATE POLICY webhook_lanes_platform_select ON webhook_lanes FOR SELECT TO {PLATFORM_ROLE} USING (true)"
        ),
        format!(
            "GRANT SELECT (tenant_id, due_at, not_before, turn_at, send_window, lease_until) ON TABLE webhook_lanes TO {PLATFORM_ROLE}"
        ),
    ]
}
