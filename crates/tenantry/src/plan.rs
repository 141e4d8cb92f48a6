//! `tenantry plan`, and what a server knows of plans while it runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tenantry_billing::plans::plan::{self, Agreement};
use tenantry_billing::plans::tenant_plan::{self, TenantPlanError};
use tenantry_billing::plans::{PlanBook, PlanError, Plans};
use tenantry_domain::kernel::{Change, InvalidatedCache, Limit, StoreError, SystemScope};
use tenantry_domain::plans::PlanVersions;
use tenantry_domain::usage::MeterKey;
use tenantry_tenancy::Precondition;
use tokio::sync::Notify;

use crate::boot::{Booted, boot};
use crate::config::{Configuration, ConfigurationError, Plans as PlanSettings};
use crate::reason::{MandatoryReason, context};
use crate::tenant::{find, invalid, other};
use crate::{CommandError, console};

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the plans on offer, and how many tenants have which version.
    #[command(after_help = "Example: tenantry plan list")]
    List,
    /// Put a tenant on a plan, on the terms of today.
    #[command(after_help = "Example: tenantry plan change acme --to pro --reason 'contract 4711'")]
    Change {
        /// Slug of the tenant.
        slug: String,
        /// The plan.
        #[arg(long)]
        to: String,
        #[command(flatten)]
        reason: MandatoryReason,
    },
    /// Agree with a tenant on something beside its plan; `=plan` takes it back.
    #[command(
        after_help = "Example: tenantry plan agree acme --limit users=60 --feature branding=on --reason 'contract 4711'\n         \
                            tenantry plan agree acme --meter api_calls=20000 --reason 'contract 4711'\n         \
                            tenantry plan agree acme --limit users=plan --reason 'the contract has ended'"
    )]
    Agree {
        /// Slug of the tenant.
        slug: String,
        /// NAME=on, NAME=off or NAME=plan.
        #[arg(long = "feature", value_parser = feature)]
        features: Vec<(String, Option<bool>)>,
        /// NAME=NUMBER, NAME=unlimited or NAME=plan.
        #[arg(long = "limit", value_parser = limit)]
        limits: Vec<(String, Option<Limit>)>,
        /// The hard limit of a meter: NAME=NUMBER, NAME=unlimited or NAME=plan.
        #[arg(long = "meter", value_parser = meter)]
        meters: Vec<(MeterKey, Option<Limit>)>,
        #[command(flatten)]
        reason: MandatoryReason,
    },
    /// Move every tenant that has an older version of a plan to the one of today.
    #[command(
        after_help = "Example: tenantry plan upgrade pro --dry-run\n         tenantry plan upgrade pro --reason 'the terms of 2027'"
    )]
    Upgrade {
        /// Name of the plan.
        plan: String,
        /// Only say how many tenants that would be.
        #[arg(long)]
        dry_run: bool,
        /// Why, for the log of operators: 1 to 500 characters. The tenants' logs have the id of that entry.
        #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
        reason: Option<String>,
    },
}

const BECAUSE: SystemScope = SystemScope::because("an operator looks after the plans of tenants");

/// Runs the command.
pub async fn run(config: &Configuration, args: &Args) -> Result<(), CommandError> {
    let booted = boot(config)?;
    let is_change = match &args.action {
        Action::Change { .. } => true,
        Action::Upgrade { dry_run, .. } => !dry_run,
        Action::List | Action::Agree { .. } => false,
    };
    let read = match is_change {
        true => booted.plans.sync(&booted).await,
        false => booted.plans.preview().await,
    };
    read.map_err(|error| other(&error))?;
    match &args.action {
        Action::List => list(&booted).await?,
        Action::Change { slug, to, reason } => {
            let cx = reason.context(&booted.app, BECAUSE)?;
            let tenant = find(&booted.app, slug).await?;
            let changed = tenant_plan::change(&cx, tenant, to, &reason.reason).await;
            let changed = changed.map_err(refused)?;
            console::say(&format!(
                "{slug} {} version {}",
                changed.plan, changed.plan_version
            ));
        }
        Action::Agree {
            slug,
            features,
            limits,
            meters,
            reason,
        } => {
            let agreement = Agreement {
                features: features.iter().cloned().collect(),
                limits: limits.iter().cloned().collect(),
                meters: meters.iter().cloned().collect(),
            };
            check(&booted, &agreement)?;
            let cx = reason.context(&booted.app, BECAUSE)?;
            let (tenant, any) = (find(&booted.app, slug).await?, Precondition::None);
            let agreed = tenant_plan::agree(&cx, tenant, &any, agreement, &reason.reason).await;
            let agreed = agreed.map_err(refused)?.agreed;
            let said = serde_json::to_string(&agreed).unwrap_or_default();
            console::say(&format!("{slug} {said}"));
        }
        Action::Upgrade { plan, reason, .. } => upgrade(&booted, plan, reason.as_deref()).await?,
    }
    booted.finish().await;
    Ok(())
}

fn feature(text: &str) -> Result<(String, Option<bool>), String> {
    let (name, value) = named(text)?;
    match value {
        "on" => Ok((name, Some(true))),
        "off" => Ok((name, Some(false))),
        "plan" => Ok((name, None)),
        _ => Err("must be NAME=on, NAME=off or NAME=plan".into()),
    }
}

fn limit(text: &str) -> Result<(String, Option<Limit>), String> {
    let (name, value) = named(text)?;
    match value {
        "plan" => Ok((name, None)),
        "unlimited" => Ok((name, Some(Limit::Unlimited))),
        number => match number.parse() {
            Ok(most) => Ok((name, Some(Limit::Of(most)))),
            Err(_) => Err("must be NAME=NUMBER, NAME=unlimited or NAME=plan".into()),
        },
    }
}

fn meter(text: &str) -> Result<(MeterKey, Option<Limit>), String> {
    let (name, value) = limit(text)?;
    let key = MeterKey::parse(&name).ok_or_else(|| format!("'{name}' is not the key of a meter"))?;
    Ok((key, value))
}

fn named(text: &str) -> Result<(String, &str), String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("must have a '=' between name and value")?;
    Ok((name.to_owned(), value))
}

/// A name that no plan knows is a slip of the pen: it would grant nothing and nobody would notice.
fn check(booted: &Booted, agreement: &Agreement) -> Result<(), CommandError> {
    match agreement.unknown_name(booted.app.ports.plans.as_ref()) {
        Some((_, name)) => Err(CommandError::Other(format!(
            "no plan knows '{name}': see config/plans.toml"
        ))),
        None => Ok(()),
    }
}

async fn list(booted: &Booted) -> Result<(), CommandError> {
    let subscribed = plan::subscribed(&booted.app, BECAUSE).await;
    let subscribed = subscribed.map_err(|error| other(&error))?;
    for terms in booted.app.ports.plans.on_offer() {
        let note = match booted.plans.book.is_stored(&terms.name, terms.version) {
            true => "",
            false => ", stored when a server starts with it or a tenant gets it",
        };
        console::say(&format!(
            "{} version {} on offer{note}",
            terms.name, terms.version
        ));
    }
    for version in subscribed {
        let (plan, number, tenants) = (version.plan, version.version, version.tenants.len());
        console::say(&format!("{plan} version {number} of {tenants} tenants"));
    }
    Ok(())
}

fn refused(error: TenantPlanError) -> CommandError {
    match error {
        TenantPlanError::Invalid(bad) => invalid(&bad),
        error => other(&error),
    }
}

/// Moves the tenants, for a reason. Without one it only says how many that would be.
async fn upgrade(booted: &Booted, plan: &str, reason: Option<&str>) -> Result<(), CommandError> {
    let plans = &booted.app.ports.plans;
    let terms = plans.current(plan).ok_or_else(|| {
        let names = plans.names().join(", ");
        CommandError::Other(format!("there is no plan '{plan}': there are {names}"))
    })?;
    let subscribed = plan::subscribed(&booted.app, BECAUSE).await;
    let subscribed = subscribed.map_err(|error| other(&error))?;
    let older = subscribed
        .into_iter()
        .filter(|it| it.plan == plan && it.version != terms.version)
        .flat_map(|it| it.tenants);
    let older: Vec<_> = older.collect();
    let Some(reason) = reason else {
        console::say(&format!(
            "{} tenants would move to version {}",
            older.len(),
            terms.version
        ));
        return Ok(());
    };
    let cx = context(&booted.app, BECAUSE, Some(reason))?;
    for (done, tenant) in older.iter().enumerate() {
        let moved = tenant_plan::upgrade(&cx, *tenant, plan, reason).await;
        moved.map_err(refused)?;
        if (done + 1) % 100 == 0 {
            console::progress(&format!("{} of {} tenants moved", done + 1, older.len()));
        }
    }
    console::say(&format!(
        "{} tenants moved to version {}",
        older.len(),
        terms.version
    ));
    Ok(())
}

/// The plans of a running server, kept in step with what others store.
#[derive(Clone)]
pub struct KnownPlans {
    pub book: Arc<PlanBook>,
    store: Arc<dyn PlanVersions>,
    changed: Arc<Notify>,
}

/// How often versions are read although nothing was heard of a new one.
const EVERY: Duration = Duration::from_secs(30);

impl KnownPlans {
    /// The plans of this book, whose versions are stored there.
    pub fn new(book: Arc<PlanBook>, changed: Arc<Notify>, store: Arc<dyn PlanVersions>) -> Self {
        book.refresh_from(Arc::clone(&store));
        Self { book, store, changed }
    }

    /// Learns all versions and stores none: for commands that neither create tenants nor change their plans.
    pub async fn preview(&self) -> Result<(), StoreError> {
        self.book.preview(self.store.as_ref()).await
    }

    /// Stores what is new of the plans on offer, with a record in the log of operators, and learns all versions.
    pub async fn sync(&self, booted: &Booted) -> Result<(), StoreError> {
        let now = booted.app.ports.clock.now();
        self.book.sync(self.store.as_ref(), now).await
    }

    /// Learns what others add, for as long as it is polled; it never ends.
    pub async fn run(self) {
        loop {
            // Either is a reason to look; which one it was does not matter.
            let _ = tokio::time::timeout(EVERY, self.changed.notified()).await;
            if let Err(error) = self.book.reload(self.store.as_ref()).await {
                tracing::warn!(%error, "the versions of plans could not be read, those known stay in use");
            }
        }
    }
}

/// What wakes [`KnownPlans::run`] when another server has added a version.
pub struct Waker(pub Arc<Notify>);

impl InvalidatedCache for Waker {
    fn invalidate(&self, change: Change) {
        match change {
            Change::Catalogue => self.0.notify_one(),
            Change::Tenant(_) | Change::User(..) | Change::ApiKey(..) | Change::Configuration(_) => {}
        }
    }

    fn set_live(&self, _: bool) {
        self.0.notify_one();
    }
}

/// The plans on offer: those of the file, or those compiled in, with what the configuration says otherwise.
pub fn book(config: &PlanSettings) -> Result<PlanBook, ConfigurationError> {
    let plans = match &config.file {
        Some(path) => read(path)?,
        None => Plans::standard(),
    };
    let plans = plans
        .overridden(&config.overrides)
        .map_err(|error| ConfigurationError::invalid("plans.overrides", error.to_string()))?;
    PlanBook::new(plans).map_err(|error| ConfigurationError::invalid("plans.file", error.to_string()))
}

fn read(path: &Path) -> Result<Plans, ConfigurationError> {
    let complain =
        |problem: String| ConfigurationError::invalid("plans.file", format!("{}: {problem}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| complain(error.to_string()))?;
    Plans::parse(&text).map_err(|error: PlanError| complain(error.to_string()))
}
