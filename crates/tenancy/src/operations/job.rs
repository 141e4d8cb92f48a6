//! Work that is done later: how it is written, put into the queue, and looked after by operators.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::Duration;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tenantry_domain::kernel::{
    Constraint, Invalid, JobId, PageRequest, StoreError, SystemJobId, SystemScope, TenantId, Time,
};
use tenantry_domain::operations::{Enqueued, InvalidTransition, Job, JobFilter, NewJob, SystemJob};
use tenantry_domain::store::Work;
use tenantry_domain::tenant::Denied;

use crate::kernel::carries_store_error::carries_store_error;
pub use crate::kernel::job_failure::JobFailure;
use crate::{Cx, Origin, Tenancy};

/// In how many tenants at once something is looked after: few, so that requests find connections.
pub const TENANTS_AT_ONCE: usize = 2;

/// Whether so many tenants are there is asked at once.
pub const ADMITTED_AT_ONCE: usize = 500;

/// Does the jobs of one kind.
///
/// It gets the context of the job's own tenant, made by [`Gate::job`](tenantry_domain::tenant::Gate::job): there is no other
/// tenant it could work in. A job may be run more than once (a worker may die after the work and before saying so), so
/// what a handler does twice must be the same as once.
///
/// ```
/// use serde::{Deserialize, Serialize};
/// use tenantry_domain::kernel::ProjectId;
/// use tenantry_tenancy::Cx;
/// use tenantry_tenancy::operations::job::{JobFailure, JobHandler};
///
/// struct Recount;
///
/// #[derive(Serialize, Deserialize)]
/// struct Which {
///     project: ProjectId,
/// }
///
/// impl JobHandler for Recount {
///     const KIND: &'static str = "project.recount";
///     type Payload = Which;
///
///     async fn run(&self, cx: &Cx, payload: Which) -> Result<(), JobFailure> {
///         let found = cx.read(async |work| work.projects().find(payload.project).await).await?;
///         found.map(|_| ()).ok_or_else(|| JobFailure::Permanent("the project is gone".into()))
///     }
/// }
/// ```
pub trait JobHandler: Send + Sync + 'static {
    /// Its kind, which is stored: it stays what it is.
    const KIND: &'static str;
    /// The form of the payload that is written now.
    const SCHEMA_VERSION: i32 = 1;
    /// Whether it changes anything. If so it waits while its tenant is suspended.
    const WRITES: bool = true;
    /// Whether it is done although its tenant is deleted by then; see
    /// [`Gate::farewell`](tenantry_domain::tenant::Gate::farewell).
    const AFTER_DELETION: bool = false;
    /// After how many failures a job is given up.
    const MAX_ATTEMPTS: u32 = NewJob::MAX_ATTEMPTS;
    /// Maximum number of its jobs that a worker runs at once; `None` for no other maximum than the worker's. A kind that waits for
    /// something of which there is little has one: its other jobs stay in the queue, and take no place from other kinds.
    const AT_ONCE: Option<u32> = None;
    /// What it needs to know.
    type Payload: Serialize + DeserializeOwned + Send + Sync;

    /// Does a job.
    fn run(&self, cx: &Cx, payload: Self::Payload) -> impl Future<Output = Result<(), JobFailure>> + Send;

    /// Reads a stored payload. A handler whose payload has changed its form reads the former ones here too.
    ///
    /// # Errors
    /// What is wrong with it, in words for an operator.
    fn read(schema_version: i32, payload: Value) -> Result<Self::Payload, String> {
        read(Self::SCHEMA_VERSION, schema_version, payload)
    }
}

/// Does jobs of the system's own. Another trait than [`JobHandler`], so that neither kind of work can be taken for the
/// other: it gets leave to work across tenants, and no context of one.
pub trait SystemJobHandler: Send + Sync + 'static {
    /// Its kind, which is stored: it stays what it is.
    const KIND: &'static str;
    /// The form of the payload that is written now.
    const SCHEMA_VERSION: i32 = 1;
    /// After how many failures a job is given up.
    const MAX_ATTEMPTS: u32 = NewJob::MAX_ATTEMPTS;
    /// What it needs to know.
    type Payload: Serialize + DeserializeOwned + Send + Sync;

    /// Does a job.
    fn run(
        &self,
        app: &Arc<Tenancy>,
        because: SystemScope,
        payload: Self::Payload,
    ) -> impl Future<Output = Result<(), JobFailure>> + Send;

    /// How often it is done by itself, and with which payload; at most once in each such period, and one at a time, however many
    /// workers there are. One that takes longer than its period is followed by one more.
    fn schedule() -> Option<(Duration, Self::Payload)> {
        None
    }
}

/// The payload of a job that has to be told nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nothing {}

impl From<JobError> for JobFailure {
    fn from(error: JobError) -> Self {
        match error {
            JobError::Store(error) => Self::Store(error),
            other => Self::Retry(other.to_string()),
        }
    }
}

/// The handlers that a worker knows.
#[derive(Default)]
pub struct Handlers {
    tenant: BTreeMap<&'static str, Arc<dyn AnyHandler>>,
    system: BTreeMap<&'static str, Arc<dyn AnySystemHandler>>,
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds = self.tenant.keys().chain(self.system.keys());
        f.debug_set().entries(kinds).finish()
    }
}

impl Handlers {
    /// Adds one, in place of any other of the same kind.
    #[must_use]
    pub fn with<H: JobHandler>(mut self, handler: H) -> Self {
        self.tenant.insert(H::KIND, Arc::new(Typed(handler)));
        self
    }

    /// Adds one for jobs of the system's own, in place of any other of the same kind.
    #[must_use]
    pub fn with_system<H: SystemJobHandler>(mut self, handler: H) -> Self {
        self.system.insert(H::KIND, Arc::new(TypedSystem(handler)));
        self
    }

    pub(crate) fn of(&self, kind: &str) -> Option<&dyn AnyHandler> {
        self.tenant.get(kind).map(AsRef::as_ref)
    }

    /// The kinds of tenants' jobs, with their maximum at once where they have one of their own.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = (&'static str, Option<u32>)> {
        self.tenant
            .iter()
            .map(|(kind, handler)| (*kind, handler.at_once()))
    }

    /// The kinds of the system's own jobs, each with how many of it may run at once on all servers. Of a kind with a schedule one runs at
    /// a time: where it takes longer than its period, further ones would only take the places of other jobs.
    pub(crate) fn system_places(&self) -> BTreeMap<String, u32> {
        let places = |(kind, handler): (&&'static str, &Arc<dyn AnySystemHandler>)| {
            let most = handler.schedule().map_or(u32::MAX, |_| 1);
            ((*kind).to_owned(), most)
        };
        self.system.iter().map(places).collect()
    }

    pub(crate) fn of_system(&self, kind: &str) -> Option<&dyn AnySystemHandler> {
        self.system.get(kind).map(AsRef::as_ref)
    }

    pub(crate) fn schedules(&self) -> impl Iterator<Item = Schedule> {
        self.system.values().filter_map(|handler| handler.schedule())
    }
}

/// When a job is to be run, and what else is to be known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// Not before then; `None` is at once.
    pub run_at: Option<Time>,
    /// No two open jobs of a kind have the same key.
    pub dedupe_key: Option<String>,
    /// The W3C `traceparent` of whoever asks for it; that of the present span when absent.
    pub trace_parent: Option<String>,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    /// The job is not a proper one.
    #[error("the job is not valid: {0:?}")]
    Invalid(#[from] Invalid),
    /// No such job.
    #[error("there is no such job")]
    NotFound,
    /// The job is not in a state for it.
    #[error(transparent)]
    InvalidTransition(#[from] InvalidTransition),
    /// Another job with its key has taken its place.
    #[error("an open job has the same key")]
    KeyTaken,
    /// No such tenant, or it is deleted.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
}

carries_store_error!(JobError);

impl From<StoreError> for JobError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unique(Constraint::Other(name)) if name == "jobs_dedupe_key" => Self::KeyTaken,
            other => Self::Store(other),
        }
    }
}

/// What kept a job from being stored, for use cases to which only the store can say no.
pub fn store_error(error: JobError) -> StoreError {
    match error {
        JobError::Store(error) => error,
        other => StoreError::Other(other.to_string()),
    }
}

/// Puts a job for a handler into the queue, with the running transaction: when that is rolled back there is no job.
///
/// # Errors
/// [`JobError`].
pub async fn enqueue<H: JobHandler>(
    cx: &Cx,
    work: &mut Work,
    payload: &H::Payload,
    terms: Terms,
) -> Result<Enqueued, JobError> {
    let new = NewJob {
        kind: H::KIND.to_owned(),
        schema_version: H::SCHEMA_VERSION,
        payload: to_value(payload)?,
        run_at: terms.run_at,
        dedupe_key: terms.dedupe_key,
        max_attempts: H::MAX_ATTEMPTS,
        trace_parent: terms.trace_parent.or_else(|| cx.ports().traces.trace_parent()),
    };
    let job = Job::new(JobId::next(cx.ids()), cx.scope(), new, cx.now())?;
    Ok(work.jobs().enqueue(&job).await?)
}

/// Does at once what jobs of a handler would do, in each of these tenants, a few at a time and each in its own scope: for what
/// is looked after in so many tenants that a job for each would cost more than what it does. Where it fails it becomes a job
/// of that tenant, which is tried again and seen by operators. A tenant that may not write just now is passed over.
///
/// # Errors
/// [`JobFailure`] when not even the jobs could be stored.
pub async fn run_in_each<H: JobHandler>(
    app: &Arc<Tenancy>,
    because: SystemScope,
    tenants: &[TenantId],
    handler: &H,
    payload: &H::Payload,
) -> Result<(), JobFailure>
where
    H::Payload: Clone,
{
    for some in tenants.chunks(ADMITTED_AT_ONCE) {
        let admitted = app.ports.gate.system_each(because, some).await?;
        // Nothing is to be done in a tenant that is gone.
        let scopes = admitted.into_iter().filter_map(|(_, scope)| scope.ok());
        stream::iter(scopes)
            .map(|scope| Cx::new(Arc::clone(app), scope, Origin::default()))
            .map(|cx| run_in(cx, handler, payload))
            .buffer_unordered(TENANTS_AT_ONCE)
            .try_collect::<()>()
            .await?;
    }
    Ok(())
}

async fn run_in<H: JobHandler>(cx: Cx, handler: &H, payload: &H::Payload) -> Result<(), JobFailure>
where
    H::Payload: Clone,
{
    match handler.run(&cx, payload.clone()).await {
        Ok(()) | Err(JobFailure::Suspended) => Ok(()),
        Err(failure) => {
            let tenant = cx.scope().tenant();
            tracing::warn!(%tenant, kind = H::KIND, %failure, "it becomes a job of the tenant");
            enqueue_in::<H>(&cx, payload).await
        }
    }
}

/// Puts a job into the tenant's queue unless one of its kind is open there: one is enough.
///
/// # Errors
/// [`JobFailure`].
pub async fn enqueue_in<H: JobHandler>(cx: &Cx, payload: &H::Payload) -> Result<(), JobFailure> {
    let terms = Terms {
        dedupe_key: Some(H::KIND.to_owned()),
        ..Terms::default()
    };
    let asked = cx
        .write(async |work| enqueue::<H>(cx, work, payload, terms).await)
        .await;
    asked.map(|_| ()).map_err(JobFailure::from)
}

/// A job of the system's own for a handler, to be put into the queue by whoever stores what it is about.
///
/// # Errors
/// [`StoreError`] for one that is not proper, which is a mistake of ours.
pub fn of_system<H: SystemJobHandler>(
    app: &Tenancy,
    payload: &H::Payload,
    dedupe_key: String,
) -> Result<SystemJob, StoreError> {
    let new = NewJob {
        kind: H::KIND.to_owned(),
        schema_version: H::SCHEMA_VERSION,
        payload: to_value(payload)?,
        run_at: None,
        dedupe_key: Some(dedupe_key),
        max_attempts: H::MAX_ATTEMPTS,
        trace_parent: None,
    };
    let job = SystemJob::new(
        SystemJobId::next(app.ports.ids.as_ref()),
        new,
        app.ports.clock.now(),
    );
    job.map_err(|invalid| StoreError::Other(format!("{}: {invalid:?}", H::KIND)))
}

/// The newest jobs of a tenant, for an operator.
///
/// # Errors
/// [`JobError`].
pub async fn list(
    app: &Arc<Tenancy>,
    tenant: TenantId,
    filter: JobFilter,
    limit: u32,
) -> Result<Vec<Job>, JobError> {
    let cx = operator(app, tenant).await?;
    let page = PageRequest { limit, after: None };
    let jobs = cx.read(async |work| work.jobs().list(filter, page).await).await?;
    Ok(jobs.items)
}

/// The context of whoever looks after the jobs of a tenant.
pub(crate) async fn operator(app: &Arc<Tenancy>, tenant: TenantId) -> Result<Cx, Denied> {
    let because = SystemScope::because("an operator looks after the jobs of a tenant");
    let scope = app.ports.gate.system(because, tenant).await?;
    Ok(Cx::new(Arc::clone(app), scope, Origin::default()))
}

/// Changes a job, with an entry in the tenant's log: the action, and why.
pub(crate) async fn change(
    cx: &Cx,
    id: JobId,
    (action, reason): (&'static str, Option<&str>),
    step: impl Fn(&mut Job) -> Result<(), InvalidTransition> + Sync,
) -> Result<Job, JobError> {
    let step = &step;
    cx.write(async |work| {
        let mut job = work.jobs().find_for_update(id).await?.ok_or(JobError::NotFound)?;
        let was = job.progress.state;
        step(&mut job)?;
        work.jobs().update(&job).await?;
        let mut details = json!({"kind": job.kind, "was": was.as_str()});
        if let Some(reason) = reason {
            details["reason"] = reason.into();
        }
        let event = cx.security(action, "job", Some(id.uuid()), details);
        work.audit().record(event).await?;
        Ok::<_, JobError>(job)
    })
    .await
}

/// A handler of any payload.
#[async_trait]
pub(crate) trait AnyHandler: Send + Sync {
    fn writes(&self) -> bool;
    fn after_deletion(&self) -> bool;
    fn at_once(&self) -> Option<u32>;
    async fn run(&self, cx: &Cx, schema_version: i32, payload: Value) -> Result<(), JobFailure>;
}

/// A handler of any payload, for jobs of the system's own.
#[async_trait]
pub(crate) trait AnySystemHandler: Send + Sync {
    fn schedule(&self) -> Option<Schedule>;
    async fn run(
        &self,
        app: &Arc<Tenancy>,
        because: SystemScope,
        schema_version: i32,
        payload: Value,
    ) -> Result<(), JobFailure>;
}

/// A job that is due once in each period.
pub(crate) struct Schedule {
    pub every: Duration,
    pub job: Result<NewJob, StoreError>,
}

struct Typed<H>(H);

#[async_trait]
impl<H: JobHandler> AnyHandler for Typed<H> {
    fn writes(&self) -> bool {
        H::WRITES
    }

    fn after_deletion(&self) -> bool {
        H::AFTER_DELETION
    }

    fn at_once(&self) -> Option<u32> {
        H::AT_ONCE
    }

    async fn run(&self, cx: &Cx, schema_version: i32, payload: Value) -> Result<(), JobFailure> {
        let payload = H::read(schema_version, payload).map_err(JobFailure::Permanent)?;
        self.0.run(cx, payload).await
    }
}

struct TypedSystem<H>(H);

#[async_trait]
impl<H: SystemJobHandler> AnySystemHandler for TypedSystem<H> {
    fn schedule(&self) -> Option<Schedule> {
        let (every, payload) = H::schedule()?;
        let job = to_value(&payload).map(|payload| NewJob {
            kind: H::KIND.to_owned(),
            schema_version: H::SCHEMA_VERSION,
            payload,
            run_at: None,
            dedupe_key: None,
            max_attempts: H::MAX_ATTEMPTS,
            trace_parent: None,
        });
        Some(Schedule { every, job })
    }

    async fn run(
        &self,
        app: &Arc<Tenancy>,
        because: SystemScope,
        schema_version: i32,
        payload: Value,
    ) -> Result<(), JobFailure> {
        let payload = read(H::SCHEMA_VERSION, schema_version, payload).map_err(JobFailure::Permanent)?;
        self.0.run(app, because, payload).await
    }
}

/// Reads a stored payload of the form that is `known`.
///
/// # Errors
/// What is wrong with it, in words for an operator.
pub fn read<T: DeserializeOwned>(known: i32, schema_version: i32, payload: Value) -> Result<T, String> {
    if schema_version != known {
        return Err(format!(
            "the payload has version {schema_version}, this handler knows version {known}"
        ));
    }
    serde_json::from_value(payload).map_err(|error| format!("the payload cannot be read: {error}"))
}

fn to_value<T: Serialize>(payload: &T) -> Result<Value, StoreError> {
    serde_json::to_value(payload)
        .map_err(|error| StoreError::Other(format!("the payload is no JSON: {error}")))
}
