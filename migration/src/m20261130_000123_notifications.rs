use sea_orm_migration::prelude::*;

use crate::{OnDelete, TenantTable};

/// Notifications of users about events, what users want to be notified of, and up to where events have notified.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        notifications().create(manager).await?;
        preferences().create(manager).await?;
        positions().create(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        positions().drop(manager).await?;
        preferences().drop(manager).await?;
        notifications().drop(manager).await
    }
}

/// A user has one notification of an event. `mail` says which digest waits for it.
fn notifications() -> TenantTable {
    TenantTable::new("notifications")
        .belongs_to("user_id", "users", OnDelete::Cascade)
        .column("kind", "text NOT NULL")
        .column("event_id", "uuid NOT NULL")
        .column("occurred_at", "timestamptz NOT NULL")
        .column("actor_kind", "text NOT NULL")
        .column("actor_id", "uuid")
        .column("entity", "text NOT NULL")
        .column("entity_id", "uuid")
        .column("parts", "jsonb NOT NULL")
        .column("in_app", "boolean NOT NULL")
        .column("mail", "text")
        .column("read_at", "timestamptz")
        .check(
            "notifications_mail_check",
            "mail IS NULL OR mail IN ('daily', 'weekly')",
        )
        .unique("notifications_event_key", &["user_id", "event_id"])
        .index("notifications_user_id_idx", &["user_id", "created_at", "id"])
        .index_where(
            "notifications_unread_idx",
            &["user_id", "created_at"],
            "read_at IS NULL AND in_app",
        )
        .index_where(
            "notifications_mail_idx",
            &["mail", "user_id", "created_at"],
            "mail IS NOT NULL",
        )
}

/// What a user has chosen, and whether the mail server refuses the user's address.
fn preferences() -> TenantTable {
    TenantTable::new("notification_preferences")
        .generated_id()
        .belongs_to("user_id", "users", OnDelete::Cascade)
        .column("choices", "jsonb NOT NULL")
        .column("digests_off", "boolean NOT NULL DEFAULT false")
        .column("refusals", "integer NOT NULL DEFAULT 0")
        .column("refused_address", "bytea")
        .column("mail_stopped_at", "timestamptz")
        .versioned()
        .check("notification_preferences_refusals_check", "refusals >= 0")
        .unique("notification_preferences_user_key", &["user_id"])
}

/// The number in the feed up to which events have notified, and the dates of the latest digests.
fn positions() -> TenantTable {
    TenantTable::new("notification_positions")
        .generated_id()
        .column("position", "bigint NOT NULL")
        .column("daily_digest", "date")
        .column("weekly_digest", "date")
        .check("notification_positions_position_check", "position >= 0")
        .single()
}
