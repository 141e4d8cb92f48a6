//! The schema of Tenantry: its roles, its tables and the rules each table obeys.
//!
//! * [`bootstrap`] makes the three roles and the database, once, as an administrator.
//! * [`up`], [`down`], [`fresh`], [`status`] and [`pending`] run the [`Migrator`] as `tenantry_owner`.
//! * [`TenantTable`] makes a tenant-scoped table; every such table comes from it, an embedder's too.
//! * [`DataMigration`] changes rows, tenant by tenant, as the runtime role.
//!
//! # Tables of another service
//!
//! A service that embeds these crates lists its own tables behind ours by [`migrator!`], or its own migrations in a
//! [`MigratorTrait`] of its own, and runs that with [`up_with`] and its sisters.

#![deny(missing_docs)]

mod bootstrap;
mod connection;
mod data;
mod error;
mod migrator;
mod quote;
mod roles;
mod run;
mod table_migration;
mod tenant_table;
mod unknown;

mod m20261121_000001_tenants;
mod m20261121_000002_users;
mod m20261121_000003_refresh_sessions;
mod m20261121_000004_projects;
mod m20261121_000005_project_members;
mod m20261121_000006_tasks;
mod m20261121_000007_resources;
mod m20261121_000008_resource_versions;
mod m20261121_000009_audit_events;
mod m20261121_000010_jobs;
mod m20261121_000011_system_jobs;
mod m20261121_000012_idempotency_keys;
mod m20261121_000013_operators;
mod m20261121_000014_tenant_settings;
mod m20261121_000015_brandings;
mod m20261121_000016_flags;
mod m20261121_000017_flag_overrides;
mod m20261121_000018_plan_versions;
mod m20261121_000019_storage_usage;
mod m20261121_000020_segment_versions;
mod m20261121_000021_usage_events;
mod m20261121_000022_usage_rollups;
mod m20261121_000024_quota_counters;
mod m20261121_000025_quota_reservations;
mod m20261121_000026_billing_accounts;
mod m20261121_000027_invoices;
mod m20261121_000028_provider_events;
mod m20261121_000029_purge_system_jobs;
mod m20261121_000032_charged_meters;
mod m20261121_000033_dead_jobs;
mod m20261128_000045_former_customers;
mod m20261128_000053_quota_lease_owners;
mod m20261128_000054_usage_intake;
mod m20261128_000060_tenant_names;
mod m20261129_000061_quota_adjustments;
mod m20261129_000062_pending_checkouts;
mod m20261129_000063_account_links;
mod m20261129_000064_operator_epochs;
mod m20261129_000065_live_sessions;
mod m20261129_000066_invitations;
mod m20261129_000067_second_factors;
mod m20261129_000068_trusted_devices;
mod m20261129_000069_api_keys;
mod m20261129_000070_security_notices;
mod m20261129_000071_lockouts;
mod m20261129_000072_sent_mails;
mod m20261129_000073_former_addresses;
mod m20261129_000074_signing_keys;
mod m20261129_000075_spent_challenges;
mod m20261129_000076_passkeys;
mod m20261129_000078_dunning_suspends_at;
mod m20261129_000079_custom_roles;
mod m20261129_000080_operator_factors;
mod m20261129_000082_self_registered_users;
mod m20261129_000085_workspaces;
mod m20261129_000087_account_ends;
mod m20261129_000088_audit_entries;
mod m20261129_000089_audit_chain;
mod m20261129_000091_tenant_lifecycle;
mod m20261129_000092_tenant_rows;
mod m20261129_000093_tenant_exports;
mod m20261129_000094_tenant_archive;
mod m20261129_000095_data_keys;
mod m20261130_000097_operator_access;
mod m20261130_000098_support_accesses;
mod m20261130_000099_security_alerts;
mod m20261130_000100_erasures;
mod m20261130_000101_tenant_domains;
mod m20261130_000102_restored_versions;
mod m20261130_000103_tenant_audit_reads;
mod m20261130_000104_audit_streams;
mod m20261130_000107_support_ends;
mod m20261130_000108_address_trigger;
mod m20261130_000109_first_passwords;
mod m20261130_000111_row_places;
mod m20261130_000120_events;
mod m20261130_000121_webhook_endpoints;
mod m20261130_000122_webhook_deliveries;
mod m20261130_000123_notifications;
mod m20261130_000124_event_feed;
mod m20261130_000125_complete_erasures;
mod m20261130_000126_operator_passwords;
mod m20261130_000127_ended_first_passwords;

pub use bootstrap::bootstrap;
pub use data::DataMigration;
pub use error::{MigrationError, TableError};
pub use migrator::{DEFINER_FUNCTIONS, GLOBAL_TABLES, Migrator, migration_names};
pub use roles::{APP_ROLE, Bootstrap, OWNER_ROLE, PLATFORM_ROLE, RolePasswords};
pub use run::{
    down, down_with, fresh, fresh_with, pending, pending_with, status, status_with, unknown_with, up, up_with,
};
pub use sea_orm_migration::{MigrationTrait, MigratorTrait};
#[doc(hidden)]
pub use table_migration::table_migration;
pub use tenant_table::{
    OnDelete, TENANT_SETTING, TenantTable, policy_expression, policy_expression_in_catalogue,
};

/// What the migrations make, as the doctor records it: an object, a grant, a policy or an attribute of a role on each
/// line. `scripts/write-catalogue` writes it anew after a change, and a test of the doctor compares it with a migrated
/// database.
pub const CATALOGUE: &str = include_str!("../catalogue.txt");
