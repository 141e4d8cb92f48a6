use async_trait::async_trait;
use sea_orm::QueryResult;
use tenantry_domain::billing::{CustomerRef, Customers, KnownCustomer};
use tenantry_domain::kernel::{StoreError, SystemScope, TenantId, Time};
use tenantry_domain::store::Mode;

use crate::Pool;
use crate::billing::billing_account::customer;
use crate::kernel::error::column;
use crate::kernel::tx::PlatformTx;

/// Which customer is which tenant, as the platform role; the runtime role has no grant on it.
#[derive(Debug, Clone)]
pub struct PgCustomers {
    platform: Pool,
}

impl PgCustomers {
    /// Customers over a pool of the platform role.
    pub fn new(platform: Pool) -> Self {
        Self { platform }
    }

    async fn run(
        &self,
        because: SystemScope,
        sql: &'static str,
        arguments: Vec<sea_orm::Value>,
        mode: Mode,
    ) -> Result<Vec<QueryResult>, StoreError> {
        let mut tx = PlatformTx::begin(&self.platform, because, mode).await?;
        let rows = tx.fetch_fixed(sql, arguments).await?;
        tx.commit().await?;
        Ok(rows)
    }
}

const EXPECT: &str = "\
INSERT INTO provider_customers (of_tenant, created_at) VALUES ($1, $2) ON CONFLICT (of_tenant) \
DO UPDATE SET removed_at = NULL";

/// The first customer stays, until the provider no longer has it.
const BIND: &str = "\
UPDATE provider_customers SET customer_ref = coalesce(customer_ref, $2) WHERE of_tenant = $1 RETURNING customer_ref";

const KNOWN: &str = "\
SELECT of_tenant, customer_ref, array_to_string(former_refs, ' ') AS former, created_at FROM provider_customers \
 WHERE of_tenant = $1";

/// One that was the customer before and is so again is no former one any more.
const REPLACE: &str = "\
UPDATE provider_customers \
 SET customer_ref = $3, former_refs = array_append(array_remove(former_refs, $3), customer_ref), removed_at = NULL \
 WHERE of_tenant = $1 AND customer_ref = $2 RETURNING customer_ref";

const TENANT_OF: &str = "\
SELECT of_tenant FROM provider_customers WHERE customer_ref = $1 \
UNION ALL SELECT of_tenant FROM provider_customers WHERE former_refs @> ARRAY[$1] LIMIT 1";

const LIST: &str = "\
SELECT c.of_tenant FROM provider_customers c JOIN tenants t ON t.id = c.of_tenant AND t.status NOT IN ('deleted', 'purged')
 WHERE c.removed_at IS NULL AND c.customer_ref IS NOT NULL AND ($1::uuid IS NULL OR c.of_tenant > $1)
 ORDER BY c.of_tenant LIMIT $2";

const LEFT_BEHIND: &str = "\
SELECT c.of_tenant, c.customer_ref, array_to_string(c.former_refs, ' ') AS former, c.created_at \
 FROM provider_customers c JOIN tenants t ON t.id = c.of_tenant AND t.status IN ('deleted', 'purged')
 WHERE c.removed_at IS NULL AND ($1::uuid IS NULL OR c.of_tenant > $1) ORDER BY c.of_tenant LIMIT $2";

const REMOVED: &str = "UPDATE provider_customers SET removed_at = $2 WHERE of_tenant = $1";

#[async_trait]
impl Customers for PgCustomers {
    async fn expect(&self, because: SystemScope, tenant: TenantId, at: Time) -> Result<(), StoreError> {
        let arguments = vec![tenant.uuid().into(), at.into()];
        self.run(because, EXPECT, arguments, Mode::Write)
            .await
            .map(|_| ())
    }

    async fn bind(
        &self,
        because: SystemScope,
        tenant: TenantId,
        found: &CustomerRef,
    ) -> Result<CustomerRef, StoreError> {
        let arguments = vec![tenant.uuid().into(), found.as_str().into()];
        let rows = self.run(because, BIND, arguments, Mode::Write).await?;
        let row = rows
            .first()
            .ok_or_else(|| StoreError::Other("nobody expected a customer of the tenant".into()))?;
        customer(&column::<String>(row, "customer_ref")?)
    }

    async fn known(
        &self,
        because: SystemScope,
        tenant: TenantId,
    ) -> Result<Option<KnownCustomer>, StoreError> {
        let arguments = vec![tenant.uuid().into()];
        let rows = self.run(because, KNOWN, arguments, Mode::Read).await?;
        rows.first().map(known).transpose()
    }

    async fn replace(
        &self,
        because: SystemScope,
        tenant: TenantId,
        gone: &CustomerRef,
        found: &CustomerRef,
    ) -> Result<CustomerRef, StoreError> {
        let arguments = vec![tenant.uuid().into(), gone.as_str().into(), found.as_str().into()];
        let rows = self.run(because, REPLACE, arguments, Mode::Write).await?;
        if let Some(row) = rows.first() {
            return customer(&column::<String>(row, "customer_ref")?);
        }
        let now = self.known(because, tenant).await?;
        let now = now.and_then(|known| known.customer);
        now.ok_or_else(|| StoreError::Other("the tenant is no customer any more".into()))
    }

    async fn tenant_of(
        &self,
        because: SystemScope,
        customer: &CustomerRef,
    ) -> Result<Option<TenantId>, StoreError> {
        let arguments = vec![customer.as_str().into()];
        let rows = self.run(because, TENANT_OF, arguments, Mode::Read).await?;
        rows.first().map(tenant).transpose()
    }

    async fn list(
        &self,
        because: SystemScope,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<TenantId>, StoreError> {
        let arguments = vec![after.map(TenantId::uuid).into(), i64::from(limit).into()];
        let rows = self.run(because, LIST, arguments, Mode::Read).await?;
        rows.iter().map(tenant).collect()
    }

    async fn left_behind(
        &self,
        because: SystemScope,
        after: Option<TenantId>,
        limit: u32,
    ) -> Result<Vec<KnownCustomer>, StoreError> {
        let arguments = vec![after.map(TenantId::uuid).into(), i64::from(limit).into()];
        let rows = self.run(because, LEFT_BEHIND, arguments, Mode::Read).await?;
        rows.iter().map(known).collect()
    }

    async fn removed(&self, because: SystemScope, tenant: TenantId, at: Time) -> Result<(), StoreError> {
        let arguments = vec![tenant.uuid().into(), at.into()];
        self.run(because, REMOVED, arguments, Mode::Write)
            .await
            .map(|_| ())
    }
}

fn tenant(row: &QueryResult) -> Result<TenantId, StoreError> {
    Ok(column::<uuid::Uuid>(row, "of_tenant")?.into())
}

fn known(row: &QueryResult) -> Result<KnownCustomer, StoreError> {
    let bound = column::<Option<String>>(row, "customer_ref")?;
    // No reference has a space in it.
    let former = column::<String>(row, "former")?;
    Ok(KnownCustomer {
        tenant: tenant(row)?,
        customer: bound.as_deref().map(customer).transpose()?,
        former: former
            .split_whitespace()
            .map(customer)
            .collect::<Result<_, _>>()?,
        expected_at: column(row, "created_at")?,
    })
}
