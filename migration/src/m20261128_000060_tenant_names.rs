use sea_orm_migration::prelude::*;
use sea_orm_migration::sea_orm::{DbErr, Statement};

use crate::tenant_table::execute_all;
use crate::{APP_ROLE, PLATFORM_ROLE};

/// One namespace for slugs and subdomains: a name belongs to one tenant, whatever it is used for, and stays reserved for
/// a while after it was given up.
#[derive(DeriveMigrationName)]
pub struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Names that are taken or given up between the copy and the triggers would be in no row. Reading goes on.
        execute_all(
            manager,
            &["LOCK TABLE tenants IN SHARE ROW EXCLUSIVE MODE".to_owned()],
        )
        .await?;
        refuse_shared_names(manager).await?;
        let sql = [
            TABLE.to_owned(),
            RELEASED.to_owned(),
            OF_TENANT.to_owned(),
            format!("REVOKE ALL ON TABLE tenant_names FROM PUBLIC, {APP_ROLE}, {PLATFORM_ROLE}"),
            // No policy lets the owner see a tenant, so the platform role copies the names.
            format!("GRANT INSERT ON TABLE tenant_names TO {PLATFORM_ROLE}"),
            format!("SET LOCAL ROLE {PLATFORM_ROLE}"),
            FILL.to_owned(),
            "RESET ROLE".to_owned(),
            format!("REVOKE INSERT ON TABLE tenant_names FROM {PLATFORM_ROLE}"),
            // Names whose quarantine is over are deleted by a job.
            format!("GRANT SELECT, DELETE ON TABLE tenant_names TO {PLATFORM_ROLE}"),
            KEEP.to_owned(),
            format!("REVOKE ALL ON FUNCTION {SIGNATURE} FROM PUBLIC"),
            format!(
                "CREATE TRIGGER tenants_names_insert AFTER INSERT ON tenants FOR EACH ROW EXECUTE FUNCTION {SIGNATURE}"
            ),
            format!(
                "CREATE TRIGGER tenants_names_update AFTER UPDATE OF slug, subdomain ON tenants FOR EACH ROW \
                 WHEN (OLD.slug IS DISTINCT FROM NEW.slug OR OLD.subdomain IS DISTINCT FROM NEW.subdomain) \
                 EXECUTE FUNCTION {SIGNATURE}"
            ),
            format!(
                "CREATE TRIGGER tenants_names_delete AFTER DELETE ON tenants FOR EACH ROW EXECUTE FUNCTION {SIGNATURE}"
            ),
        ];
        execute_all(manager, &sql).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let triggers = ["insert", "update", "delete"]
            .map(|what| format!("DROP TRIGGER tenants_names_{what} ON tenants"));
        execute_all(manager, &triggers).await?;
        let rest = [
            format!("DROP FUNCTION {SIGNATURE}"),
            "DROP TABLE tenant_names".to_owned(),
        ];
        execute_all(manager, &rest).await
    }
}

/// Not a [`TenantTable`](crate::TenantTable): a name is taken for all tenants, and outlives the tenant that had it. That is
/// why its tenant is no foreign key.
const TABLE: &str = "\
CREATE TABLE tenant_names (
    name text NOT NULL,
    of_tenant uuid NOT NULL,
    released_at timestamptz,
    CONSTRAINT tenant_names_pkey PRIMARY KEY (name)
)";

/// For the job that deletes names.
const RELEASED: &str =
    "CREATE INDEX tenant_names_released_at_idx ON tenant_names (released_at) WHERE released_at IS NOT NULL";

/// For the trigger, which looks for the names of one tenant.
const OF_TENANT: &str = "CREATE INDEX tenant_names_of_tenant_idx ON tenant_names (of_tenant)";

const FILL: &str = "\
INSERT INTO tenant_names (name, of_tenant)
SELECT t.slug, t.id FROM tenants t UNION SELECT t.subdomain, t.id FROM tenants t WHERE t.subdomain IS NOT NULL";

/// Names that are one tenant's slug and another one's subdomain.
const SHARED: &str = "\
SELECT string_agg(format('%s is the slug of tenant %s and the subdomain of tenant %s', s.slug, s.id, d.id), '; ' \
ORDER BY s.slug) FROM tenants s JOIN tenants d ON d.subdomain = s.slug AND d.id <> s.id";

/// Which of two tenants a name is to belong to is for people to decide; a slug is for good, so it is the subdomain that
/// changes.
async fn refuse_shared_names(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let database = manager.get_connection();
    database
        .execute_unprepared(&format!("SET LOCAL ROLE {PLATFORM_ROLE}"))
        .await?;
    let statement = Statement::from_string(database.get_database_backend(), SHARED);
    let row = database.query_one_raw(statement).await?;
    database.execute_unprepared("RESET ROLE").await?;
    let shared: Option<String> = row.map(|row| row.try_get_by_index(0)).transpose()?.flatten();
    match shared {
        None => Ok(()),
        Some(shared) => Err(DbErr::Migration(format!(
            "slugs and subdomains become one namespace, but {shared}. Give each of the latter tenants another subdomain \
             (PATCH /api/v1/tenant by its admin, or UPDATE tenants SET subdomain = NULL WHERE id = '...'), then migrate again"
        ))),
    }
}

const SIGNATURE: &str = "tenant_names_keep()";

/// Takes the names of a tenant that is stored, and releases those that it has no more. Of released names the latest five stay
/// the tenant's, so that no tenant keeps many names from others by taking one after the other. It runs as the owner of the tables:
/// the runtime role has no grant on the names, so it learns no more than that one is taken, by the error that the unique
/// keys of `tenants` give.
const KEEP: &str = "\
CREATE OR REPLACE FUNCTION tenant_names_keep() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        UPDATE public.tenant_names SET released_at = now() WHERE of_tenant = OLD.id AND released_at IS NULL;
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        UPDATE public.tenant_names SET released_at = NEW.updated_at
         WHERE of_tenant = OLD.id AND released_at IS NULL AND name IN (OLD.slug, OLD.subdomain)
           AND name <> NEW.slug AND name IS DISTINCT FROM NEW.subdomain;
        DELETE FROM public.tenant_names WHERE of_tenant = OLD.id AND released_at IS NOT NULL AND name NOT IN (
            SELECT latest.name FROM public.tenant_names latest
             WHERE latest.of_tenant = OLD.id AND latest.released_at IS NOT NULL
             ORDER BY latest.released_at DESC, latest.name LIMIT 5);
    END IF;
    INSERT INTO public.tenant_names AS n (name, of_tenant) VALUES (NEW.slug, NEW.id)
        ON CONFLICT (name) DO UPDATE SET released_at = NULL WHERE n.of_tenant = NEW.id;
    IF NOT FOUND THEN
        RAISE unique_violation USING CONSTRAINT = 'tenants_slug_key', TABLE = 'tenants', SCHEMA = 'public',
            MESSAGE = 'the slug is taken';
    END IF;
    IF NEW.subdomain IS NOT NULL THEN
        INSERT INTO public.tenant_names AS n (name, of_tenant) VALUES (NEW.subdomain, NEW.id)
            ON CONFLICT (name) DO UPDATE SET released_at = NULL WHERE n.of_tenant = NEW.id;
        IF NOT FOUND THEN
            RAISE unique_violation USING CONSTRAINT = 'tenants_subdomain_key', TABLE = 'tenants', SCHEMA = 'public',
                MESSAGE = 'the subdomain is taken';
        END IF;
    END IF;
    RETURN NULL;
END $$";
