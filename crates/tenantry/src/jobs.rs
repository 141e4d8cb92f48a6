//! `tenantry jobs`: what an operator does to background work from the command line, and the worker of `serve`.

use std::sync::Arc;
use std::time::Duration;

use tenantry_billing::BillingHandlers as _;
use tenantry_domain::kernel::{SystemScope, TenantId};
use tenantry_domain::operations::{Backoff, JobFilter, JobState, Progress, SystemJobs as _};
use tenantry_persistence::{PgJobQueue, PgSystemJobs};
use tenantry_tenancy::Tenancy;
use tenantry_tenancy::admin::operator_job::{self, JobStep, OperatorJobError};
use tenantry_tenancy::operations::job;
use tenantry_tenancy::operations::job::{Handlers, JobError};
use tenantry_tenancy::operations::worker::{Queues, Worker, WorkerConfig};
use tenantry_tenancy::tenant::purge::PurgeSystemJobs;

use crate::all_tenants::{FailedTenants, TenantPages};
use crate::boot::{Booted, boot};
use crate::config::Configuration;
use crate::reason::MandatoryReason;
use crate::tenant::{find, invalid, other};
use crate::{CommandError, console};

/// The most jobs that are listed of one tenant.
const LISTED: u32 = 1_000;

/// What to do.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List jobs, the newest first: id, tenant ('-' = the system's own), kind, state, attempts, due, last error.
    #[command(after_help = "Example: tenantry jobs list --state dead\n         \
                            tenantry jobs list --tenant acme")]
    List {
        /// Only this tenant's.
        #[arg(long)]
        tenant: Option<String>,
        /// Only those that are queued, running, parked, done, dead or cancelled.
        #[arg(long, value_parser = state)]
        state: Option<JobState>,
    },
    /// Begin a dead or cancelled job anew.
    #[command(
        after_help = "Example: tenantry jobs replay 0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11 --tenant acme --reason 'the mail server answers again'"
    )]
    Replay(Which),
    /// Cancel a job that has not come to its end.
    #[command(
        after_help = "Example: tenantry jobs cancel 0198f3a2-6c1e-7c3a-9d55-0d9f6b1f2a11 --tenant acme --reason 'it was asked for twice'"
    )]
    Cancel(Which),
}

#[derive(Debug, clap::Args)]
struct Which {
    /// As listed.
    id: String,
    /// The tenant it is listed with; without, it is one of the system's own.
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    reason: MandatoryReason,
}

/// Runs the command.
pub async fn run(config: &Configuration, args: &Args) -> Result<(), CommandError> {
    let booted = boot(config)?;
    match &args.action {
        Action::List { tenant, state } => list(&booted, tenant.as_deref(), *state).await?,
        Action::Replay(which) => step(&booted.app, which, JobStep::Replay).await?,
        Action::Cancel(which) => step(&booted.app, which, JobStep::Cancel).await?,
    }
    booted.finish().await;
    Ok(())
}

/// The worker of a server.
pub fn worker(booted: &Booted, config: &Configuration) -> Worker {
    let jobs = &config.jobs;
    let queues = Queues {
        jobs: Arc::new(PgJobQueue::new(booted.platform.clone())),
        system_jobs: Arc::new(PgSystemJobs::new(booted.platform.clone())),
    };
    let terms = WorkerConfig {
        poll: Duration::from_millis(jobs.poll_ms),
        at_once: jobs.at_once,
        per_tenant: jobs.per_tenant,
        lease: Duration::from_secs(jobs.lease_seconds),
        grace: Duration::from_secs(jobs.grace_seconds),
        backoff: Backoff::default(),
    };
    let handlers = match booted.app.ports.payments {
        Some(_) => Handlers::standard().with_usage().with_billing(),
        None => Handlers::standard().with_usage(),
    };
    let handlers = handlers.with_system(PurgeSystemJobs::new(Arc::clone(&queues.system_jobs)));
    let handlers = config.extension.handlers(handlers);
    Worker::new(Arc::clone(&booted.app), queues, handlers, terms)
}

async fn list(booted: &Booted, tenant: Option<&str>, state: Option<JobState>) -> Result<(), CommandError> {
    let app = &booted.app;
    if let Some(slug) = tenant {
        return list_of(app, find(app, slug).await?, slug, state).await;
    }
    let because = SystemScope::because("an operator lists all jobs");
    let own = PgSystemJobs::new(booted.platform.clone());
    let own = own
        .list(because, state, LISTED)
        .await
        .map_err(|error| other(&error))?;
    for job in own {
        say(&job.id, "-", &job.kind, &job.progress);
    }
    let mut failed = FailedTenants::default();
    let mut pages = TenantPages::new(app, because);
    while let Some(tenants) = pages.next().await? {
        for tenant in &tenants {
            let slug = tenant.slug.as_str();
            failed.note(slug, list_of(app, tenant.id, slug, state).await);
        }
    }
    failed.summary()
}

async fn list_of(
    app: &Arc<Tenancy>,
    tenant: TenantId,
    slug: &str,
    state: Option<JobState>,
) -> Result<(), CommandError> {
    let jobs = match job::list(app, tenant, JobFilter { state }, LISTED).await {
        // Nothing leads into a deleted tenant any more, and into one that is being imported yet.
        Err(JobError::Denied(denied)) if denied.not_in_use().is_some() => return Ok(()),
        jobs => jobs.map_err(|error| other(&error))?,
    };
    for job in jobs {
        say(&job.id, slug, &job.kind, &job.progress);
    }
    Ok(())
}

async fn step(app: &Arc<Tenancy>, which: &Which, step: JobStep) -> Result<(), CommandError> {
    let because = SystemScope::because("a job is repaired from the command line");
    let (reason, cx) = (&which.reason.reason, which.reason.context(app, because)?);
    let not_an_id = |_| CommandError::Other(format!("'{}' is not the id of a job", which.id));
    let id = which.id.parse().map_err(not_an_id)?;
    let tenant = match &which.tenant {
        Some(slug) => Some(find(app, slug).await?),
        None => None,
    };
    let job = operator_job::step(&cx, tenant, id, step, reason).await;
    let job = job.map_err(|error| match error {
        OperatorJobError::Invalid(bad) => invalid(&bad),
        OperatorJobError::NotFound => CommandError::Other(format!(
            "there is no such job: see {} jobs list",
            console::program()
        )),
        error => CommandError::Other(format!("{error}: see {} jobs list", console::program())),
    })?;
    say(
        &job.id,
        which.tenant.as_deref().unwrap_or("-"),
        &job.kind,
        &job.progress,
    );
    Ok(())
}

fn say(id: &dyn std::fmt::Display, tenant: &str, kind: &str, progress: &Progress) {
    let Progress {
        attempts,
        max_attempts,
        ..
    } = progress;
    let (state, due) = (progress.state.as_str(), console::moment(progress.run_at));
    let error = progress
        .last_error
        .as_deref()
        .and_then(|error| error.lines().next());
    let error = error.unwrap_or_default();
    let line = format!("{id} {tenant} {kind} {state} {attempts}/{max_attempts} {due} {error}");
    console::say(line.trim_end());
}

fn state(text: &str) -> Result<JobState, String> {
    let names = JobState::ALL.map(JobState::as_str);
    JobState::parse(text).ok_or_else(|| format!("must be one of {}", names.join(", ")))
}
