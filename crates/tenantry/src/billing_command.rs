//! `tenantry billing`: what an operator does about payments from the command line.

use std::sync::Arc;
use std::time::Duration;

use chrono::{Months, NaiveDate};
use tenantry_billing::billing::billing_finding::Finding;
use tenantry_billing::billing::billing_oversight::{self, DriftLine, LostCustomer, Sweep};
use tenantry_billing::billing::billing_surplus::Surplus;
use tenantry_billing::billing::meter_report::{self, Drift};
use tenantry_billing::billing::provider_event;
use tenantry_domain::billing::{EventState, SubscriptionRef};
use tenantry_domain::kernel::{Period, SystemScope, TenantId};
use tenantry_domain::plans::{PlanCatalogue, PlanTerms};
use tenantry_stripe::StripePayments;
use tenantry_tenancy::{OperatorCx, Tenancy};

use crate::boot::{Booted, boot};
use crate::config::Configuration;
use crate::reason::Reason;
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
    /// Tell the payment provider what was used in the hours that are over; a server does it every hour by itself.
    #[command(after_help = "Example: tenantry billing publish\n         \
                            tenantry billing publish --tenant acme")]
    Publish {
        /// Only of this tenant.
        #[arg(long)]
        tenant: Option<String>,
        #[command(flatten)]
        reason: Reason,
    },
    /// Compare our numbers with the payment provider's: tenant, meter, hours, ours, theirs, difference, and how much of it is
    /// untold, pending, dead, late and unexplained. Lists subscriptions that are too many, run for former customers or for other
    /// things, and customers whose metadata was edited. Fails when anything but a subscription for other things is unexplained.
    #[command(after_help = "Example: tenantry billing reconcile\n         \
                            tenantry billing reconcile --tenant acme --period 2026-01")]
    Reconcile {
        /// Only of this tenant.
        #[arg(long)]
        tenant: Option<String>,
        /// A month of the calendar (UTC); each tenant's present month when absent.
        #[arg(long, value_parser = month)]
        period: Option<Period>,
    },
    /// List the tenants whose customers the payment provider no longer has: tenant, customer, and what takes its place. Customers
    /// are gone when they were deleted there, and after a change of the account or the key.
    #[command(after_help = "Example: tenantry billing customers\n         \
                            tenantry billing customers --replace --tenant acme    (makes it a customer anew)")]
    Customers {
        /// Only this tenant.
        #[arg(long)]
        tenant: Option<String>,
        /// Make each of them a customer anew; what the former customer was subscribed to has ended.
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        reason: Reason,
    },
    /// List what the payment provider told of, the newest first: id, kind, customer, state, attempts, received, reason.
    #[command(after_help = "Example: tenantry billing events --state ignored\n         \
                            tenantry billing events --fetch    (asks for what was never told first)")]
    Events {
        /// Only those that are pending, done, ignored or dead.
        #[arg(long, value_parser = state)]
        state: Option<EventState>,
        /// Ask the provider first for what it has not told of.
        #[arg(long)]
        fetch: bool,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: u32,
        #[command(flatten)]
        reason: Reason,
    },
}

const BECAUSE: SystemScope = SystemScope::because("an operator looks after billing on the command line");

/// Runs the command.
pub async fn run(config: &Configuration, args: &Args) -> Result<(), CommandError> {
    let booted = boot(config)?;
    if booted.app.ports.payments.is_none() {
        return Err(CommandError::Other(
            "payments are not set up; see billing.stripe.secret_key".into(),
        ));
    }
    // What is learned of a subscription may change the plan of its tenant.
    let changes_plans = match &args.action {
        Action::Publish { .. } => true,
        Action::Customers { replace, .. } => *replace,
        Action::Events { fetch, .. } => *fetch,
        Action::Reconcile { .. } => false,
    };
    let read = match changes_plans {
        true => booted.plans.sync(&booted).await,
        false => booted.plans.preview().await,
    };
    read.map_err(|error| other(&error))?;
    let done = match &args.action {
        Action::Publish { tenant, reason } => {
            let cx = reason.context(&booted.app, BECAUSE)?;
            publish(&cx, tenant.as_deref()).await
        }
        Action::Reconcile { tenant, period } => reconcile(&booted, tenant.as_deref(), *period).await,
        Action::Customers {
            tenant,
            replace,
            reason,
        } => {
            let cx = reason.context(&booted.app, BECAUSE)?;
            customers(&cx, tenant.as_deref(), *replace).await
        }
        Action::Events {
            state,
            fetch,
            limit,
            reason,
        } => {
            let cx = reason.context(&booted.app, BECAUSE)?;
            events(&cx, *state, *fetch, *limit).await
        }
    };
    booted.finish().await;
    done
}

/// Makes known to Stripe what is on offer, so that it can be bought there; again and again until it has been done.
pub async fn offer(plans: Arc<dyn PlanCatalogue>, stripe: Arc<StripePayments>) {
    let mut wait = Duration::from_secs(1);
    loop {
        let on_offer: Vec<PlanTerms> = plans
            .on_offer()
            .iter()
            .map(|terms| PlanTerms::clone(terms))
            .collect();
        match stripe.publish(&on_offer, plans.meters()).await {
            Ok(published) => {
                tracing::info!(?published, "plans are known to Stripe");
                return;
            }
            Err(error) => tracing::warn!(%error, "plans cannot be made known to Stripe, trying again"),
        }
        // Stripe is away or refuses: asking again at once would only add to that.
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(300));
    }
}

async fn publish(cx: &OperatorCx, tenant: Option<&str>) -> Result<(), CommandError> {
    for tenant in tenants(cx.app(), tenant).await? {
        let published = meter_report::publish_of(cx, BECAUSE, tenant).await;
        let published = published.map_err(|error| other(&error))?;
        console::say(&format!(
            "{tenant} new {} sent {} dead {}",
            published.made, published.sent, published.dead
        ));
    }
    Ok(())
}

async fn reconcile(
    booted: &Booted,
    tenant: Option<&str>,
    period: Option<Period>,
) -> Result<(), CommandError> {
    let cx = OperatorCx::command(&booted.app, BECAUSE);
    let mut unexplained = 0_u64;
    let mut tell = |lines: Vec<DriftLine>| {
        for line in lines {
            match line {
                DriftLine::Meter(drift) => {
                    unexplained += u64::from(drift.unexplained() != 0);
                    say(&drift);
                }
                DriftLine::Surplus(found) => {
                    unexplained += 1;
                    say_surplus(&found);
                }
                DriftLine::Finding(found) => {
                    unexplained += u64::from(found.kind.is_fault());
                    say_finding(&found);
                }
            }
        }
    };
    if let Some(slug) = tenant {
        let tenant = find(&booted.app, slug).await?;
        let drifts = billing_oversight::drift_of(&cx, tenant, period).await;
        tell(drifts.map_err(|error| other(&error))?);
    } else {
        let mut after = None;
        loop {
            let swept = billing_oversight::drift(&cx, period, Sweep { after, limit: 100 }).await;
            let swept = swept.map_err(|error| other(&error))?;
            tell(swept.found);
            after = swept.next;
            if after.is_none() {
                break;
            }
        }
    }
    match unexplained {
        0 => Ok(()),
        rows => Err(CommandError::Other(format!(
            "{rows} rows differ without a reason; see docs/billing.md"
        ))),
    }
}

fn say(drift: &Drift) {
    let Drift {
        tenant,
        meter,
        period,
        ours,
        theirs,
        untold,
        pending,
        dead,
        late,
    } = drift;
    let (from, to) = (console::moment(period.start), console::moment(period.end));
    console::say(&format!(
        "{tenant} {meter} {from} {to} ours {ours} theirs {theirs} difference {} untold {untold} pending {pending} \
         dead {dead} late {late} unexplained {}",
        drift.difference(),
        drift.unexplained()
    ));
}

fn say_surplus(found: &Surplus) {
    let kept = found.kept.as_ref().map_or("-", |kept| kept.as_str());
    let surplus: Vec<&str> = found.surplus.iter().map(SubscriptionRef::as_str).collect();
    console::say(&format!(
        "{} has more than one subscription: {kept} counts, surplus {}",
        found.tenant,
        surplus.join(" ")
    ));
}

fn say_finding(found: &Finding) {
    let subscription = found.subscription.as_ref().map_or("-", |one| one.as_str());
    console::say(&format!(
        "{} {} customer {} subscription {subscription}",
        found.tenant,
        found.kind.as_str(),
        found.customer
    ));
}

async fn customers(cx: &OperatorCx, tenant: Option<&str>, replace: bool) -> Result<(), CommandError> {
    let mut lost = 0_u64;
    let mut tell = |found: Vec<LostCustomer>| {
        for one in found {
            lost += 1;
            let outcome = match &one.replacement {
                Some(customer) => format!("replaced {customer}"),
                None => "gone".to_owned(),
            };
            console::say(&format!("{} {} {outcome}", one.tenant, one.customer));
        }
    };
    if let Some(slug) = tenant {
        let tenant = find(cx.app(), slug).await?;
        let found = billing_oversight::lost_customer_of(cx, tenant, replace).await;
        tell(found.map_err(|error| other(&error))?);
    } else {
        let mut after = None;
        loop {
            let swept = billing_oversight::lost_customers(cx, replace, Sweep { after, limit: 100 }).await;
            let swept = swept.map_err(|error| other(&error))?;
            tell(swept.found);
            after = swept.next;
            if after.is_none() {
                break;
            }
        }
    }
    console::progress(&format!("{lost} customers are not there"));
    Ok(())
}

async fn events(
    cx: &OperatorCx,
    state: Option<EventState>,
    fetch: bool,
    limit: u32,
) -> Result<(), CommandError> {
    if fetch {
        let missed = provider_event::fetch_for_operator(cx, BECAUSE).await;
        let missed = missed.map_err(|error| other(&error))?;
        console::progress(&format!("{missed} events had not been told"));
    }
    let events = provider_event::list(cx.app(), BECAUSE, state, limit).await;
    for received in events.map_err(|error| other(&error))? {
        let event = &received.event;
        let customer = event.customer.as_ref().map_or("-", |customer| customer.as_str());
        let line = format!(
            "{} {} {customer} {} {} {} {}",
            event.id,
            event.kind,
            received.state.as_str(),
            received.attempts,
            console::moment(received.received_at),
            received.reason.as_deref().unwrap_or_default()
        );
        console::say(line.trim_end());
    }
    Ok(())
}

async fn tenants(app: &Tenancy, slug: Option<&str>) -> Result<Vec<TenantId>, CommandError> {
    if let Some(slug) = slug {
        return Ok(vec![find(app, slug).await?]);
    }
    let mut all: Vec<TenantId> = Vec::new();
    loop {
        let customers = &app.ports.customers;
        let some = customers.list(BECAUSE, all.last().copied(), 500).await;
        let some = some.map_err(|error| other(&error))?;
        if some.is_empty() {
            return Ok(all);
        }
        all.extend(some);
    }
}

fn month(text: &str) -> Result<Period, String> {
    let wrong = || "must be a month such as 2026-01".to_owned();
    let first = NaiveDate::parse_from_str(&format!("{text}-01"), "%Y-%m-%d").map_err(|_| wrong())?;
    let next = first.checked_add_months(Months::new(1)).ok_or_else(wrong)?;
    let midnight = |day: NaiveDate| day.and_hms_opt(0, 0, 0).map(|at| at.and_utc());
    let (start, end) = midnight(first).zip(midnight(next)).ok_or_else(wrong)?;
    Ok(Period { start, end })
}

fn state(text: &str) -> Result<EventState, String> {
    let names = EventState::ALL.map(EventState::as_str);
    EventState::parse(text).ok_or_else(|| format!("must be one of {}", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_one_of_the_calendar() {
        let december = month("2026-12").unwrap();
        assert_eq!(december.start.to_rfc3339(), "2026-12-01T00:00:00+00:00");
        assert_eq!(december.end.to_rfc3339(), "2027-01-01T00:00:00+00:00");
        for text in ["", "2026", "2026-13", "2026-1-1", "january", "2026-01-01"] {
            assert!(month(text).is_err(), "{text}");
        }
    }
}
