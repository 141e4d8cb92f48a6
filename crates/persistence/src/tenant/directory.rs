use std::sync::Arc;

use async_trait::async_trait;
use sea_orm::sea_query::SimpleExpr;
use sea_orm::{ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryResult, QueryTrait as _};
use serde_json::json;
use tenantry_domain::identity::Narrowing;
use tenantry_domain::kernel::{
    ApiKeyId, Clock, OperatorId, RequestId, Role, SessionId, StoreError, SupportAccessId, SystemScope,
    TenantId, UserId,
};
use tenantry_domain::operations::{OperatorPermission, OperatorRole};
use tenantry_domain::plans::Subscription;
use tenantry_domain::store::Mode;
use tenantry_domain::tenant::{
    ApiKeyFacts, Directory, DomainName, Initiator, JobFacts, JobLease, MembershipFacts, Slug, SupportFacts,
    TenantFacts, TenantSelector, TenantStatus,
};

use crate::Pool;
use crate::identity::{api_key, custom_role};
use crate::kernel::error::{column, from_json};
use crate::kernel::store::unknown;
use crate::kernel::tx::{Literal, Lookup, PlatformTx, TenantTx};
use crate::plans::plan::unsigned;
use crate::tenant::support_access;
use crate::tenant::tenant::entity::{Column, Entity};

/// The facts that scopes are made of, read from PostgreSQL.
///
/// Which tenant a name belongs to is asked as the platform role, which sees `tenants` and nothing else; who is a
/// member is asked as the runtime role inside that one tenant.
#[derive(Clone)]
pub struct PgDirectory {
    runtime: Pool,
    platform: Pool,
    clock: Arc<dyn Clock>,
}

impl PgDirectory {
    /// A directory over a pool of the runtime role and one of the platform role.
    pub fn new(runtime: Pool, platform: Pool, clock: Arc<dyn Clock>) -> Self {
        Self {
            runtime,
            platform,
            clock,
        }
    }

    /// The tenant that requests for a host lead to.
    async fn of_host(
        &self,
        because: SystemScope,
        host: &DomainName,
    ) -> Result<Option<TenantFacts>, StoreError> {
        let mut tx = PlatformTx::begin_for_guest(&self.platform, because, Mode::Read).await?;
        let rows = tx.fetch_fixed(OF_HOST, [host.as_str().into()]).await?;
        tx.commit().await?;
        rows.first().map(tenant).transpose()
    }

    /// The tenants for which a condition holds.
    async fn named(mut tx: PlatformTx, condition: SimpleExpr) -> Result<Vec<TenantFacts>, StoreError> {
        let rows = tx
            .fetch::<Entity>(&Entity::find().filter(condition).into_query())
            .await?;
        tx.commit().await?;
        rows.iter().map(TenantFacts::try_from).collect()
    }
}

/// `$1` is the host. The trigger of `tenant_domains` keeps the hosts.
const OF_HOST: &str = "\
SELECT t.id, t.slug, t.subdomain, t.plan, t.plan_version, t.agreed, t.status \
  FROM domain_hosts h JOIN tenants t ON t.id = h.of_tenant WHERE h.host = $1 AND h.serves";

/// `$1` labels and `$2` hosts, arrays of texts in JSON.
const BY_HOSTS: &str = "\
SELECT NULL::text AS host, t.id, t.slug, t.subdomain, t.plan, t.plan_version, t.agreed, t.status \
  FROM tenants t WHERE t.subdomain IN (SELECT jsonb_array_elements_text($1)) \
UNION ALL \
SELECT h.host, t.id, t.slug, t.subdomain, t.plan, t.plan_version, t.agreed, t.status \
  FROM domain_hosts h JOIN tenants t ON t.id = h.of_tenant \
 WHERE h.serves AND h.host IN (SELECT jsonb_array_elements_text($2))";

/// User, session and tenant in one round trip. Each table is compared with the tenant by itself.
static MEMBERSHIP: Lookup = Lookup {
    name: "tenantry_membership",
    types: "uuid, uuid, uuid, timestamptz",
    sql: MEMBERSHIP_SQL,
};

const MEMBERSHIP_SQL: &str = "\
SELECT t.id, t.slug, t.subdomain, t.plan, t.plan_version, t.agreed, t.status, u.role, u.custom_role, u.is_active, \
       s.revoked_at IS NULL AND s.expires_at > $4 AS session_is_live, s.expires_at AS session_expires_at, \
       r.base_role, r.permissions \
  FROM tenants t \
  JOIN users u ON u.tenant_id = $1 AND u.id = $2 AND u.deleted_at IS NULL \
  JOIN refresh_sessions s ON s.tenant_id = $1 AND s.id = $3 AND s.user_id = u.id \
  LEFT JOIN custom_roles r ON r.tenant_id = $1 AND r.name = u.custom_role \
 WHERE t.id = $1";

/// Key, creator and tenant in one round trip. Each table is compared with the tenant by itself. A creator who is deactivated or
/// removed has no role.
static API_KEY: Lookup = Lookup {
    name: "tenantry_api_key",
    types: "uuid, uuid",
    sql: API_KEY_SQL,
};

const API_KEY_SQL: &str = "\
SELECT t.id, t.slug, t.subdomain, t.plan, t.plan_version, t.agreed, t.status, k.created_at AS key_created_at, k.name, k.user_id, \
       k.service_account, k.scopes, k.allowed_networks, k.secret_hash, k.former_hash, k.former_until, k.expires_at, k.notified, k.last_used_at, \
       k.revoked_at, k.updated_at, k.version, u.role, u.custom_role, r.base_role, r.permissions \
  FROM tenants t \
  JOIN api_keys k ON k.tenant_id = $1 AND k.id = $2 \
  LEFT JOIN users u ON u.tenant_id = $1 AND u.id = k.user_id AND u.is_active AND u.deleted_at IS NULL \
  LEFT JOIN custom_roles r ON r.tenant_id = $1 AND r.name = u.custom_role \
 WHERE t.id = $1";

/// Access, tenant and operator, as the platform role, which alone sees operators. Each table of tenants is compared with the tenant.
const SUPPORT_ACCESS: &str = "\
SELECT t.id, t.slug, t.subdomain, t.plan, t.plan_version, t.agreed, t.status, s.operator_id, s.operator_epoch, s.access, s.decided_by, \
       s.status = 'active' AND s.expires_at > $3 AS is_live, o.epoch, o.role AS operator_role, o.is_active \
  FROM tenants t \
  JOIN support_accesses s ON s.tenant_id = $1 AND s.id = $2 \
  JOIN operators o ON o.id = s.operator_id \
 WHERE t.id = $1";

/// A running job and its tenant in one round trip, each compared with the tenant by itself. The lease expires by the clock of
/// the database.
const JOB: &str = "\
SELECT t.id, t.slug, t.subdomain, t.plan, t.plan_version, t.agreed, t.status, j.actor_type, j.actor_id, j.request_id \
  FROM tenants t \
  JOIN jobs j ON j.tenant_id = $1 AND j.id = $2 AND j.state = 'running' AND j.lease_id = $3 \
   AND j.lease_until > statement_timestamp() \
 WHERE t.id = $1";

#[async_trait]
impl Directory for PgDirectory {
    async fn tenant(&self, selector: &TenantSelector) -> Result<Option<TenantFacts>, StoreError> {
        let because = SystemScope::because("find the tenant that a request names");
        let named = match selector {
            TenantSelector::Id(id) => Column::Id.eq(id.uuid()),
            TenantSelector::Slug(slug) => Column::Slug.eq(slug.as_str()),
            TenantSelector::Subdomain(label) => Column::Subdomain.eq(label.as_str()),
            TenantSelector::Domain(host) => return self.of_host(because, host).await,
        };
        let tx = PlatformTx::begin_for_guest(&self.platform, because, Mode::Read).await?;
        Ok(Self::named(tx, named).await?.pop())
    }

    async fn tenants_by_hosts(
        &self,
        labels: &[Slug],
        domains: &[DomainName],
    ) -> Result<Vec<(TenantSelector, TenantFacts)>, StoreError> {
        let because = SystemScope::because("find the tenants of hosts that a proxy asks about");
        let labels: Vec<_> = labels.iter().map(Slug::as_str).collect();
        let domains: Vec<_> = domains.iter().map(DomainName::as_str).collect();
        let mut tx = PlatformTx::begin_for_guest(&self.platform, because, Mode::Read).await?;
        let arguments = [json!(labels).into(), json!(domains).into()];
        let rows = tx.fetch_fixed(BY_HOSTS, arguments).await?;
        tx.commit().await?;
        rows.iter().map(of_host).collect()
    }

    async fn tenants(&self, ids: &[TenantId]) -> Result<Vec<TenantFacts>, StoreError> {
        let named = Column::Id.is_in(ids.iter().map(|id| id.uuid()));
        let because = SystemScope::because("find the tenants that something is done in one after the other");
        let tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        Self::named(tx, named).await
    }

    async fn membership(
        &self,
        tenant: TenantId,
        user: UserId,
        session: SessionId,
    ) -> Result<Option<MembershipFacts>, StoreError> {
        let (user, session) = (Literal::Id(user.uuid()), Literal::Id(session.uuid()));
        let arguments = [user, session, Literal::At(self.clock.now())];
        let row = TenantTx::look_up(&self.runtime, tenant, &MEMBERSHIP, &arguments).await?;
        row.map(|row| membership(&row)).transpose()
    }

    async fn api_key(&self, tenant: TenantId, key: ApiKeyId) -> Result<Option<ApiKeyFacts>, StoreError> {
        let arguments = [Literal::Id(key.uuid())];
        let row = TenantTx::look_up(&self.runtime, tenant, &API_KEY, &arguments).await?;
        row.map(|row| api_key_facts(&row, tenant, key)).transpose()
    }

    fn caches_api_key(&self, _: TenantId, _: ApiKeyId) -> bool {
        false
    }

    async fn support_access(
        &self,
        tenant: TenantId,
        access: SupportAccessId,
    ) -> Result<Option<SupportFacts>, StoreError> {
        let because = SystemScope::because("admit an operator to a tenant that has approved it");
        let mut tx = PlatformTx::begin(&self.platform, because, Mode::Read).await?;
        let arguments = [
            tenant.uuid().into(),
            access.uuid().into(),
            self.clock.now().into(),
        ];
        let rows = tx.fetch_fixed(SUPPORT_ACCESS, arguments).await?;
        tx.commit().await?;
        rows.first().map(support_facts).transpose()
    }

    async fn job(&self, lease: &JobLease) -> Result<Option<JobFacts>, StoreError> {
        let mut tx = TenantTx::begin(&self.runtime, lease.tenant, Mode::Read).await?;
        let (job, id) = (lease.job.uuid(), lease.lease.uuid());
        let row = tx.fetch_fixed(JOB, [job.into(), id.into()]).await?;
        tx.commit().await?;
        row.map(|row| job_facts(&row)).transpose()
    }
}

/// A tenant, and what of it a host names.
fn of_host(row: &QueryResult) -> Result<(TenantSelector, TenantFacts), StoreError> {
    let tenant = tenant(row)?;
    let selector = match (column::<Option<String>>(row, "host")?, &tenant.subdomain) {
        (Some(host), _) => TenantSelector::Domain(DomainName::stored(host)),
        (None, Some(label)) => TenantSelector::Subdomain(label.clone()),
        (None, None) => return Err(StoreError::Other("a tenant was found by no name".into())),
    };
    Ok((selector, tenant))
}

fn api_key_facts(row: &QueryResult, in_tenant: TenantId, key: ApiKeyId) -> Result<ApiKeyFacts, StoreError> {
    let role: Option<String> = column(row, "role")?;
    let role = role.map(|role| Role::parse(&role).ok_or_else(|| unknown("users.role", &role)));
    Ok(ApiKeyFacts {
        tenant: tenant(row)?,
        key: api_key::of_row(row, in_tenant.uuid(), key)?,
        creator_role: role.transpose()?,
        creator_narrowing: narrowing(row)?,
    })
}

fn support_facts(row: &QueryResult) -> Result<SupportFacts, StoreError> {
    let role: String = column(row, "operator_role")?;
    let role = OperatorRole::parse(&role).ok_or_else(|| unknown("operators.role", &role))?;
    let epoch: i64 = column(row, "epoch")?;
    let asked = column::<Option<i64>>(row, "operator_epoch")?;
    // Tokens that were ended since the request have ended the access with them.
    let is_same = asked.is_none_or(|asked| asked == epoch);
    let stands =
        is_same && column::<bool>(row, "is_active")? && role.has(OperatorPermission::UseSupportAccess);
    Ok(SupportFacts {
        tenant: tenant(row)?,
        operator: OperatorId::from(column::<uuid::Uuid>(row, "operator_id")?),
        operator_epoch: stands.then_some(epoch),
        level: support_access::level(&column::<String>(row, "access")?)?,
        approved_by: column::<Option<uuid::Uuid>>(row, "decided_by")?.map(UserId::from),
        is_live: column::<Option<bool>>(row, "is_live")?.unwrap_or(false),
    })
}

fn job_facts(row: &QueryResult) -> Result<JobFacts, StoreError> {
    let request: String = column(row, "request_id")?;
    Ok(JobFacts {
        tenant: tenant(row)?,
        initiator: Initiator {
            actor_type: column(row, "actor_type")?,
            actor_id: column::<Option<uuid::Uuid>>(row, "actor_id")?.map(UserId::from),
            request: RequestId::parse(&request).ok_or_else(|| unknown("jobs.request_id", &request))?,
        },
    })
}

fn membership(row: &QueryResult) -> Result<MembershipFacts, StoreError> {
    let role: String = column(row, "role")?;
    Ok(MembershipFacts {
        tenant: tenant(row)?,
        role: Role::parse(&role).ok_or_else(|| unknown("users.role", &role))?,
        narrowing: narrowing(row)?,
        is_active: column(row, "is_active")?,
        session_is_live: column(row, "session_is_live")?,
        session_expires_at: column(row, "session_expires_at")?,
    })
}

/// What a user's custom role leaves. One that is not there, which a foreign key rules out, leaves nothing.
fn narrowing(row: &QueryResult) -> Result<Option<Narrowing>, StoreError> {
    let name: Option<String> = column(row, "custom_role")?;
    let base_role: Option<String> = column(row, "base_role")?;
    let permissions: Option<serde_json::Value> = column(row, "permissions")?;
    let base_role = base_role.as_deref().map(custom_role::base_role).transpose()?;
    let permissions = permissions.as_ref().map(custom_role::permissions).transpose()?;
    Ok(name.map(|_| Narrowing {
        base_role: base_role.unwrap_or(Role::Viewer),
        permissions: permissions.unwrap_or_default(),
    }))
}

fn tenant(row: &QueryResult) -> Result<TenantFacts, StoreError> {
    let status: String = column(row, "status")?;
    let slug: String = column(row, "slug")?;
    let subdomain: Option<String> = column(row, "subdomain")?;
    let parse = |text: &String| Slug::parse(text).ok_or_else(|| unknown("tenants.slug", text));
    Ok(TenantFacts {
        id: column::<uuid::Uuid>(row, "id")?.into(),
        slug: parse(&slug)?,
        subdomain: subdomain.as_ref().map(parse).transpose()?,
        subscription: Arc::new(Subscription {
            plan: column(row, "plan")?,
            version: unsigned(column(row, "plan_version")?)?,
            agreed: serde_json::from_value(column(row, "agreed")?).map_err(from_json)?,
        }),
        status: TenantStatus::parse(&status).ok_or_else(|| unknown("tenants.status", &status))?,
    })
}
