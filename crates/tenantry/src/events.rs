//! `tenantry events`: the export of events to a broker.

use tenantry_domain::kernel::{SystemScope, TenantId, Time};
use tenantry_tenancy::OperatorCx;
use tenantry_tenancy::events::rewind;

use crate::all_tenants::{FailedTenants, TenantPages};
use crate::boot::boot;
use crate::config::Configuration;
use crate::reason::MandatoryReason;
use crate::tenant::{find, other};
use crate::{CommandError, console};

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Export events again that the broker has lost: all that are kept, or those from a time on. They have the same ids as before, and the
    /// servers export them.
    #[command(
        after_help = "Example: tenantry events rewind --tenant acme --reason 'the stream was deleted'\n         \
                      tenantry events rewind --all-tenants --since 2026-11-30T08:00:00Z --reason 'failover of Redis'"
    )]
    Rewind {
        /// Slug of the tenant.
        #[arg(long, required_unless_present = "all_tenants", conflicts_with = "all_tenants")]
        tenant: Option<String>,
        /// Of every tenant that is not deleted.
        #[arg(long)]
        all_tenants: bool,
        /// Only events from this time on, in RFC 3339; some minutes before the loss.
        #[arg(long, value_name = "TIME")]
        since: Option<Time>,
        #[command(flatten)]
        reason: MandatoryReason,
    },
}

const BECAUSE: SystemScope = SystemScope::because("an operator sets the export of events back");

/// Runs the command.
pub async fn run(config: &Configuration, args: &Args) -> Result<(), CommandError> {
    let booted = boot(config)?;
    let Action::Rewind {
        tenant,
        since,
        reason,
        ..
    } = &args.action;
    let cx = reason.context(&booted.app, BECAUSE)?;
    let done = match tenant.as_deref() {
        Some(slug) => {
            let tenant = find(&booted.app, slug).await?;
            of_tenant(&cx, (tenant, slug), *since).await
        }
        None => of_all(&cx, *since).await,
    };
    booted.finish().await;
    done
}

async fn of_all(cx: &OperatorCx, since: Option<Time>) -> Result<(), CommandError> {
    let mut failed = FailedTenants::default();
    let mut pages = TenantPages::new(cx.app(), BECAUSE);
    while let Some(tenants) = pages.next().await? {
        for tenant in &tenants {
            let slug = tenant.slug.as_str();
            failed.note(slug, of_tenant(cx, (tenant.id, slug), since).await);
        }
    }
    failed.summary()
}

async fn of_tenant(
    cx: &OperatorCx,
    (tenant, slug): (TenantId, &str),
    since: Option<Time>,
) -> Result<(), CommandError> {
    let inside = cx
        .try_enter(BECAUSE, tenant)
        .await
        .map_err(|error| other(&error))?;
    let Some(inside) = inside else {
        console::say(&format!("{slug} is not in use: nothing was changed"));
        return Ok(());
    };
    let waiting = rewind::rewind(cx, &inside, since).await;
    let waiting = waiting.map_err(|error| other(&error))?;
    console::say(&format!("{slug} {waiting} events wait to be exported"));
    Ok(())
}
