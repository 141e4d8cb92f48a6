use sea_orm_migration::prelude::*;

use crate::tenant_table::execute_all;
use crate::{APP_ROLE, PLATFORM_ROLE, TenantTable};

/// Custom domains of tenants, and which tenant holds a proven host.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        table().create(manager).await?;
        let sql = [
            HOSTS.to_owned(),
            format!("REVOKE ALL ON TABLE domain_hosts FROM PUBLIC, {APP_ROLE}, {PLATFORM_ROLE}"),
            format!("GRANT SELECT ON TABLE domain_hosts TO {PLATFORM_ROLE}"),
            HOLD.to_owned(),
            format!("REVOKE ALL ON FUNCTION {SIGNATURE} FROM PUBLIC"),
            format!(
                "CREATE TRIGGER tenant_domains_hosts AFTER INSERT OR UPDATE OR DELETE ON tenant_domains FOR EACH ROW \
                 EXECUTE FUNCTION {SIGNATURE}"
            ),
        ];
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let triggers = ["DROP TRIGGER tenant_domains_hosts ON tenant_domains".to_owned()];
        execute_all(manager, &triggers).await?;
        let rest = [
            format!("DROP FUNCTION {SIGNATURE}"),
            "DROP TABLE domain_hosts".to_owned(),
        ];
        execute_all(manager, &rest).await?;
        table().drop(manager).await
    }
}

/// The unique key is within the tenant: a claim keeps no other tenant from the domain, and tells none that it is there.
fn table() -> TenantTable {
    TenantTable::new("tenant_domains")
        .column("domain", "text NOT NULL")
        .column("state", "text NOT NULL")
        .column("token", "text NOT NULL")
        .column("claimed_until", "timestamptz NOT NULL")
        .column("verified_at", "timestamptz")
        .column("activated_at", "timestamptz")
        .column("failing_since", "timestamptz")
        .column("released_at", "timestamptz")
        .column("release_reason", "text")
        .column("checked_at", "timestamptz")
        .column("check_result", "text")
        .check(
            "tenant_domains_state_check",
            "state IN ('pending', 'verified', 'active', 'failing', 'released')",
        )
        .check(
            "tenant_domains_domain_check",
            "domain ~ '^[a-z0-9.-]{4,235}$' AND position('.' IN domain) > 1",
        )
        .check(
            "tenant_domains_proof_check",
            "state IN ('pending', 'released') OR verified_at IS NOT NULL",
        )
        .check("tenant_domains_active_check", "state <> 'active' OR activated_at IS NOT NULL")
        .check(
            "tenant_domains_failing_check",
            "(state = 'failing') = (failing_since IS NOT NULL)",
        )
        .check(
            "tenant_domains_released_check",
            "(state = 'released') = (released_at IS NOT NULL) AND (released_at IS NULL) = (release_reason IS NULL)",
        )
        .unique("tenant_domains_domain_key", &["domain"])
        .versioned()
}

/// Not a [`TenantTable`](crate::TenantTable): a host is held among all tenants, and requests are resolved by it before a tenant is
/// known. The tenant is no foreign key: the trigger deletes the rows. `serves`: requests for the host lead to the tenant.
const HOSTS: &str = "\
CREATE TABLE domain_hosts (
    host text NOT NULL,
    of_tenant uuid NOT NULL,
    of_domain uuid NOT NULL,
    serves boolean NOT NULL,
    CONSTRAINT domain_hosts_pkey PRIMARY KEY (host)
)";

const SIGNATURE: &str = "domain_hosts_hold()";

/// Holds the host of a domain that is proven, and frees it when the domain is released or deleted. A second tenant that proves a host
/// gets a unique violation. It runs as the owner of the tables: the runtime role has no grant on the hosts, so it learns
/// no more than that one is held, and only with the proof that it controls the domain.
const HOLD: &str = "\
CREATE OR REPLACE FUNCTION domain_hosts_hold() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    holds boolean := TG_OP <> 'DELETE' AND NEW.state IN ('verified', 'active', 'failing');
BEGIN
    IF TG_OP <> 'INSERT' AND (NOT holds OR NEW.domain <> OLD.domain OR NEW.id <> OLD.id) THEN
        DELETE FROM public.domain_hosts h
         WHERE h.host = OLD.domain AND h.of_tenant = OLD.tenant_id AND h.of_domain = OLD.id;
    END IF;
    IF holds THEN
        INSERT INTO public.domain_hosts AS h (host, of_tenant, of_domain, serves)
        VALUES (NEW.domain, NEW.tenant_id, NEW.id, NEW.activated_at IS NOT NULL)
        ON CONFLICT (host) DO UPDATE SET serves = EXCLUDED.serves
         WHERE h.of_tenant = EXCLUDED.of_tenant AND h.of_domain = EXCLUDED.of_domain;
        IF NOT FOUND THEN
            RAISE unique_violation USING CONSTRAINT = 'domain_hosts_pkey', TABLE = 'domain_hosts', SCHEMA = 'public',
                MESSAGE = 'the host is held';
        END IF;
    END IF;
    RETURN NULL;
END $$";
