//! `tenantry quota`: compare the counters of quotas with the ledger, and correct them.

use tenantry_billing::usage::quota::{self, Corrected, QuotaError};
use tenantry_billing::usage::quota_drift::{self, Reconciled};
use tenantry_domain::kernel::{Invalid, SystemScope, TenantId};
use tenantry_domain::usage::{MeterKey, PLAN_KEY_RULE, QuotaDrift, QuotaFinding};

use crate::all_tenants::{FailedTenants, TenantPages};
use tenantry_tenancy::OperatorCx;

use crate::boot::boot;
use crate::config::Configuration;
use crate::reason::{MandatoryReason, Reason};
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
    /// Compare what quotas have counted with the ledger: tenant, meter, period, counted, ledger, how an operator has
    /// adjusted that, difference, how much is lent out, how much was lost with servers that died, and what there is to say
    /// of it: agrees, lent, lost, ahead or behind. Of all tenants only what differs is shown.
    #[command(after_help = "Example: tenantry quota reconcile\n         \
                            tenantry quota reconcile --tenant acme --repair")]
    Reconcile {
        /// Only of this tenant; then also what agrees.
        #[arg(long)]
        tenant: Option<String>,
        /// Give back what was lost, in present periods too. Only when no server, nor the folder of a dead one, has calls
        /// left to store: see metering_spool_pending.
        #[arg(long)]
        repair: bool,
        #[command(flatten)]
        reason: Reason,
    },
    /// Set how much of a meter counts as used in the present period, and record why. The ledger, which bills are made of, stays as
    /// it is.
    #[command(
        after_help = "Example: tenantry quota correct acme --meter api_calls --used 640 --reason 'reserved by mistake'"
    )]
    Correct {
        /// Slug of the tenant.
        slug: String,
        /// Key of the meter, for example `api_calls`.
        #[arg(long, value_parser = meter)]
        meter: MeterKey,
        /// What counts as used from now on; `quota reconcile --tenant` shows what the ledger says.
        #[arg(long)]
        used: u64,
        #[command(flatten)]
        reason: MandatoryReason,
    },
}

fn meter(text: &str) -> Result<MeterKey, String> {
    MeterKey::parse(text).ok_or_else(|| PLAN_KEY_RULE.to_owned())
}

const BECAUSE: SystemScope = SystemScope::because("an operator compares quotas with the ledger");
/// Runs the command.
pub async fn run(config: &Configuration, args: &Args) -> Result<(), CommandError> {
    let booted = boot(config)?;
    booted.plans.preview().await.map_err(|error| other(&error))?;
    let done = match &args.action {
        Action::Reconcile {
            tenant,
            repair,
            reason,
        } => {
            let cx = reason.context(&booted.app, BECAUSE)?;
            reconcile(&cx, tenant.as_deref(), *repair).await
        }
        Action::Correct {
            slug,
            meter,
            used,
            reason,
        } => {
            let because = SystemScope::because("an operator corrects a quota's counter");
            let cx = reason.context(&booted.app, because)?;
            correct(&cx, because, slug, (meter, *used, &reason.reason)).await
        }
    };
    booted.finish().await;
    done
}

async fn reconcile(cx: &OperatorCx, tenant: Option<&str>, repair: bool) -> Result<(), CommandError> {
    if let Some(slug) = tenant {
        let tenant = find(cx.app(), slug).await?;
        return of_tenant(cx, (tenant, slug), repair, |_| true).await;
    }
    let differs = |drift: &QuotaDrift| drift.finding() != QuotaFinding::Agrees;
    let mut failed = FailedTenants::default();
    let mut pages = TenantPages::new(cx.app(), BECAUSE);
    while let Some(tenants) = pages.next().await? {
        for tenant in &tenants {
            let slug = tenant.slug.as_str();
            failed.note(slug, of_tenant(cx, (tenant.id, slug), repair, differs).await);
        }
    }
    failed.summary()
}

async fn correct(
    cx: &OperatorCx,
    because: SystemScope,
    slug: &str,
    (meter, used, reason): (&MeterKey, u64, &str),
) -> Result<(), CommandError> {
    let tenant = find(cx.app(), slug).await?;
    let corrected = quota::correct(cx, because, tenant, (meter, used, reason)).await;
    let corrected = corrected.map_err(|error| match error {
        QuotaError::Invalid(Invalid(errors)) => {
            let errors = errors
                .iter()
                .map(|it| format!("{}: {}", it.pointer.trim_start_matches('/'), it.detail));
            CommandError::Other(errors.collect::<Vec<_>>().join("; "))
        }
        error => CommandError::Other(error.to_string()),
    })?;
    let (from, to) = (
        console::moment(corrected.period.start),
        console::moment(corrected.period.end),
    );
    let Corrected { before, after, .. } = corrected;
    console::say(&format!("{slug} {meter} {from} {to} used {before} now {after}"));
    Ok(())
}

async fn of_tenant(
    cx: &OperatorCx,
    (tenant, slug): (TenantId, &str),
    repair: bool,
    is_shown: impl Fn(&QuotaDrift) -> bool,
) -> Result<(), CommandError> {
    let all = quota_drift::reconcile_of(cx, BECAUSE, tenant, repair).await;
    let all = all.map_err(|error| other(&error))?;
    for one in all.iter().filter(|one| is_shown(&one.drift)) {
        say(slug, one);
    }
    Ok(())
}

fn say(slug: &str, Reconciled { drift, given_back }: &Reconciled) {
    let (from, to) = (
        console::moment(drift.period.start),
        console::moment(drift.period.end),
    );
    let finding = drift.finding();
    let back = match (given_back, finding) {
        (Some(back), _) => format!(" gave back {back}"),
        (None, QuotaFinding::Lost(back)) => format!(" could give back {back}"),
        (None, QuotaFinding::Agrees | QuotaFinding::Lent | QuotaFinding::Ahead | QuotaFinding::Behind) => {
            String::new()
        }
    };
    let adjusted = match drift.adjustment {
        0 => String::new(),
        adjustment => format!(" adjusted {adjustment}"),
    };
    console::say(&format!(
        "{slug} {} {from} {to} counted {} ledger {}{adjusted} difference {} lent {} lost {} {}{back}",
        drift.meter,
        drift.tally.used,
        drift.ledger,
        drift.difference(),
        drift.tally.leased,
        drift.lost,
        finding.as_str(),
    ));
}
