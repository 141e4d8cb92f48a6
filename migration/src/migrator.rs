use sea_orm_migration::{MigrationTrait, MigratorTrait};

/// The tables that are not a tenant's, in alphabetical order. Everything else in the schema `public` comes
/// from [`TenantTable`](crate::TenantTable).
pub const GLOBAL_TABLES: &[&str] = &[
    // Which tenant holds a proven custom domain. A trigger keeps it; the runtime role has no grant on it.
    "domain_hosts",
    // Which positions of which tenant's feed were published, in one order over all tenants. The runtime role has no grant on it.
    "event_log",
    "event_log_state",
    // The definitions of flags and every version of them, which are everybody's: the runtime role has no grant on them.
    "flag_versions",
    "flags",
    // What operators did, who they are, and how they log in: the platform's, so the runtime role has no grant on any.
    "operator_event_outbox",
    "operator_event_stream",
    "operator_events",
    "operator_lockouts",
    "operator_recovery_codes",
    "operator_totp_factors",
    "operators",
    // What plans grant, version by version: the operator's. The runtime role has no grant on it.
    "plan_versions",
    // Which customer of the payment provider is which tenant, and what that provider tells of: the platform's. The runtime
    // role has no grant on any.
    "provider_customers",
    "provider_events",
    "provider_watermark",
    // Which migrations have been applied: says nothing about anybody, and the server reads it before it is
    // ready.
    "seaql_migrations",
    // Conditions that rules of flags have in common, and every version of them. The runtime role has no grant on them.
    "segment_versions",
    "segments",
    // Which address got a mail of which tenant within a day, the address as a keyed digest. The runtime role has no grant on it.
    "sent_mails",
    // The keys that sign access tokens of all tenants, sealed. The runtime role has no grant on it.
    "signing_keys",
    // Which challenges were answered, before there is a user or a tenant. The runtime role has no grant on it.
    "spent_challenges",
    // Work of the system's own, which is done in no tenant: the runtime role has no grant on it.
    "system_jobs",
    // Which slugs and subdomains are taken, one namespace for all tenants. A trigger keeps it; the runtime role has no grant
    // on it.
    "tenant_names",
    // What is left of tenants that were purged: id, times, counts. The runtime role has no grant on it.
    "tenant_tombstones",
    // The tenants themselves. It obeys the same rule by its `id`, having no `tenant_id`; in addition
    // operators and the tenant directory see all of it.
    "tenants",
    // Which accounts of all tenants an address has, the address as a digest. Triggers keep it; the runtime role has no grant on it.
    "user_addresses",
    // Addresses to which a list of their workspaces is to be mailed. The runtime role has no grant on it.
    "workspace_requests",
];

/// The functions that triggers of tenant tables, or the runtime role, run as the owner of the tables, in alphabetical order: what
/// each of them does for a tenant, the runtime role may not do itself.
pub const DEFINER_FUNCTIONS: &[&str] = &[
    // Blackens what entries of the tenant's audit log say of an erased person. The runtime role may only add to the log.
    "audit_erase",
    // Deletes old entries of the tenant's audit log, behind a checkpoint. The runtime role may only add to the log.
    "audit_retain",
    // Holds and frees the host of the custom domain whose row is stored, in a table that shows all tenants' hosts.
    "domain_hosts_hold",
    // Takes and releases the names of the tenant whose row is stored, in a table that shows all tenants' names.
    "tenant_names_keep",
    // Deletes the accounts of a deleted tenant from the index of addresses, which shows all tenants' accounts.
    "user_addresses_drop",
    // Keeps the account whose row is stored in the same index.
    "user_addresses_keep",
];

/// The migrations of Tenantry, in order.
#[derive(Debug, Clone, Copy)]
pub struct Migrator;

/// The migrator of these modules of the crate, in the order in which they are applied.
macro_rules! in_order {
    ($($module:ident)*) => {
        impl MigratorTrait for Migrator {
            fn migrations() -> Vec<Box<dyn MigrationTrait>> {
                vec![$(Box::new(crate::$module::Migration)),*]
            }
        }
    };
}

in_order! {
    m20261121_000001_tenants
    m20261121_000002_users
    m20261121_000003_refresh_sessions
    m20261121_000004_projects
    m20261121_000005_project_members
    m20261121_000006_tasks
    m20261121_000007_resources
    m20261121_000008_resource_versions
    m20261121_000009_audit_events
    m20261121_000010_jobs
    m20261121_000011_system_jobs
    m20261121_000012_idempotency_keys
    m20261121_000013_operators
    m20261121_000014_tenant_settings
    m20261121_000015_brandings
    m20261121_000016_flags
    m20261121_000017_flag_overrides
    m20261121_000018_plan_versions
    m20261121_000019_storage_usage
    m20261121_000020_segment_versions
    m20261121_000021_usage_events
    m20261121_000022_usage_rollups
    m20261121_000024_quota_counters
    m20261121_000025_quota_reservations
    m20261121_000026_billing_accounts
    m20261121_000027_invoices
    m20261121_000028_provider_events
    m20261121_000029_purge_system_jobs
    m20261121_000032_charged_meters
    m20261121_000033_dead_jobs
    m20261128_000045_former_customers
    m20261128_000053_quota_lease_owners
    m20261128_000054_usage_intake
    m20261128_000060_tenant_names
    m20261129_000061_quota_adjustments
    m20261129_000062_pending_checkouts
    m20261129_000065_live_sessions
    m20261129_000066_invitations
    m20261129_000067_second_factors
    m20261129_000068_trusted_devices
    m20261129_000063_account_links
    m20261129_000064_operator_epochs
    m20261129_000069_api_keys
    m20261129_000078_dunning_suspends_at
    m20261129_000070_security_notices
    m20261129_000071_lockouts
    m20261129_000074_signing_keys
    m20261129_000075_spent_challenges
    m20261129_000072_sent_mails
    m20261129_000073_former_addresses
    m20261129_000076_passkeys
    m20261129_000080_operator_factors
    m20261129_000082_self_registered_users
    m20261129_000079_custom_roles
    m20261129_000085_workspaces
    m20261129_000087_account_ends
    m20261129_000088_audit_entries
    m20261129_000089_audit_chain
    m20261129_000091_tenant_lifecycle
    m20261129_000092_tenant_rows
    m20261129_000093_tenant_exports
    m20261129_000094_tenant_archive
    m20261129_000095_data_keys
    m20261130_000097_operator_access
    m20261130_000098_support_accesses
    m20261130_000099_security_alerts
    m20261130_000100_erasures
    m20261130_000101_tenant_domains
    m20261130_000102_restored_versions
    m20261130_000103_tenant_audit_reads
    m20261130_000104_audit_streams
    m20261130_000107_support_ends
    m20261130_000108_address_trigger
    m20261130_000109_first_passwords
    m20261130_000111_row_places
    m20261130_000120_events
    m20261130_000121_webhook_endpoints
    m20261130_000122_webhook_deliveries
    m20261130_000123_notifications
    m20261130_000124_event_feed
    m20261130_000125_complete_erasures
    m20261130_000126_operator_passwords
    m20261130_000127_ended_first_passwords
}

/// The names of the migrations of a migrator, in order.
pub fn migration_names<M: MigratorTrait>() -> Vec<String> {
    let migrations = M::migrations();
    migrations
        .iter()
        .map(|migration| migration.name().to_owned())
        .collect()
}
