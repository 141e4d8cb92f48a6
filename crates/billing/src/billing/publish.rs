//! The jobs that report usage to the payment provider: hourly in each tenant that is a customer.

use std::sync::Arc;

use chrono::Duration;
use tenantry_domain::kernel::{Permission, SystemScope, TenantId};
use tenantry_tenancy::operations::job::{self, JobFailure, JobHandler, Nothing, SystemJobHandler};
use tenantry_tenancy::{Cx, Tenancy};

use crate::billing::billing_sync::catch_up;
use crate::billing::meter_report::{Publish, publish};

impl JobHandler for Publish {
    const KIND: &'static str = "billing.publish";
    const WRITES: bool = false;
    type Payload = Nothing;

    async fn run(&self, cx: &Cx, _: Nothing) -> Result<(), JobFailure> {
        cx.require(Permission::OperateBilling)?;
        if let Some(payments) = &cx.ports().payments {
            catch_up(cx, payments.as_ref()).await?;
        }
        publish(cx).await.map(|_| ()).map_err(JobFailure::from)
    }
}

/// Asks for [`Publish`] in every tenant that is a customer.
#[derive(Debug, Clone, Copy)]
pub struct PublishAll;

impl SystemJobHandler for PublishAll {
    const KIND: &'static str = "billing.publish_all";
    type Payload = Nothing;

    async fn run(&self, app: &Arc<Tenancy>, because: SystemScope, _: Nothing) -> Result<(), JobFailure> {
        let mut after = None;
        loop {
            let tenants = app.ports.customers.list(because, after, 500).await?;
            let Some(last) = tenants.last() else { return Ok(()) };
            after = Some(*last);
            for tenant in tenants {
                ask(app, because, tenant).await?;
            }
        }
    }

    fn schedule() -> Option<(Duration, Nothing)> {
        Some((Duration::hours(1), Nothing {}))
    }
}

async fn ask(app: &Arc<Tenancy>, because: SystemScope, tenant: TenantId) -> Result<(), JobFailure> {
    let Some(cx) = Cx::enter(app, because, tenant).await? else {
        return Ok(());
    };
    job::enqueue_in::<Publish>(&cx, &Nothing {}).await
}
