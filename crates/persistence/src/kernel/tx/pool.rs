use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use deadpool::managed::{
    Manager, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult, Timeouts,
};
use deadpool::{Runtime, Status};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tenantry_domain::kernel::{StoreError, TenantId};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::turns::{Caller, Part, Turn, Turns};

/// How many connections, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    /// At the most so many connections; at least 1.
    pub size: usize,
    /// How long a request waits for a free connection before it is answered 503.
    pub acquire_timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// A connection that was idle for longer is asked whether it is alive before it is used.
    pub check_after_idle: Duration,
    /// A connection is replaced after this long, so that memory of the server and changed settings come round.
    pub max_lifetime: Duration,
    /// The URL leads to a pooler in transaction mode (PgBouncer), where the next transaction may run on another
    /// server connection: no statement is prepared by name, and no start-up parameter is sent that it does not know.
    pub behind_pooler: bool,
    /// How many threads with a runtime of their own use it (the workers of actix): each gets connections of its own, so
    /// that no answer of the server wakes another thread than the one that waits for it. 0 = all share all.
    pub threads: usize,
    /// What PostgreSQL is told to give up after; as the role has it where absent.
    pub timeouts: StatementTimeouts,
    /// Statements are planned once for all values and not anew for each: with a bound LIMIT PostgreSQL takes its guess at
    /// the general plan for too dear and would plan every time, which costs as much as running them. All statements of
    /// the builders lead by the tenant's index whatever the values are; and no tenant's statistics make another plan.
    /// Without effect behind a pooler, where nothing is prepared.
    pub generic_plans: bool,
    /// How many connections one tenant may use at once; 0 = half of them, rounded up, and while other tenants are there half of
    /// that, rounded down, but at least one. The unauthenticated callers of a tenant may use a quarter of that, at least one;
    /// unauthenticated callers who name no known tenant a third of the pool, at least one.
    pub per_tenant: usize,
    /// How many requests may wait, of each party for its connections and of all for any; the next one is answered 503 at
    /// once, which is better for everybody than a queue that nobody is served from in time.
    pub queue: usize,
}

/// After how long PostgreSQL gives up; each as the role has it where absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StatementTimeouts {
    /// Running a single statement.
    pub statement: Option<Duration>,
    /// Waiting for a lock.
    pub lock: Option<Duration>,
    /// A transaction in which nothing happens; the connection is closed.
    pub idle_in_transaction: Option<Duration>,
}

impl StatementTimeouts {
    fn settings(self) -> impl Iterator<Item = (&'static str, String)> {
        let all = [
            ("statement_timeout", self.statement),
            ("lock_timeout", self.lock),
            ("idle_in_transaction_session_timeout", self.idle_in_transaction),
        ];
        all.into_iter()
            .filter_map(|(name, after)| Some((name, format!("{}ms", after?.as_millis()))))
    }
}

impl PoolConfig {
    /// How many of the connections are for all that runs on no thread with a share of its own: jobs, and the loops of a server.
    pub fn shared_connections(&self) -> usize {
        shares(self.size.max(1), self.threads)
            .first()
            .copied()
            .unwrap_or(1)
    }
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            size: 10,
            acquire_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            check_after_idle: Duration::from_secs(30),
            max_lifetime: Duration::from_secs(30 * 60),
            behind_pooler: false,
            threads: 0,
            timeouts: StatementTimeouts::default(),
            generic_plans: true,
            per_tenant: 0,
            queue: 1_000,
        }
    }
}

/// A small pool of owned connections.
///
/// sqlx's own pool sends a ping with every release and spawns a task for it, which costs more than the query; and
/// it hands out connections that know how to run anything. This one is only used by the transactions beside it.
#[derive(Clone)]
pub struct Pool {
    /// The first is for everybody; the others, where there are any, for a thread each.
    shares: Arc<[Share]>,
    acquire_timeout: Duration,
    queue: usize,
    prepares: bool,
    /// What each transaction sets for itself, in the message that begins it.
    per_transaction: Arc<str>,
    /// What it was made from.
    origin: Arc<(String, PoolConfig)>,
}

/// Some of the connections, and how many of them each party may use at once.
struct Share {
    connections: deadpool::managed::Pool<Connector>,
    tenants: Arc<Turns<TenantId>>,
    guests: Arc<Turns<TenantId>>,
    founders: Arc<Turns<()>>,
    lookups: Arc<Turns<()>>,
    upkeep: Arc<Turns<()>>,
}

/// Whom a connection is for. Each has a bound of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Party {
    /// A tenant's admitted users and jobs.
    Tenant(TenantId),
    /// Callers of a tenant without a credential. Their connections are part of the tenant's; where that is one at a time, the
    /// tenant's users go before them.
    Guest(TenantId),
    /// Callers that create a tenant, all together: each tenant is new, so by tenants there would be no bound.
    Founder,
    /// Callers without a credential and without a known tenant: lookups of names, logins of operators.
    Lookup,
    /// The server's own small questions, readiness among them: one connection.
    Upkeep,
    /// Operators and jobs of the platform: any connection.
    Platform,
}

/// The turns that a connection is used in.
#[derive(Default)]
struct Taken {
    _lane: Option<Turn<()>>,
    _guest: Option<Turn<TenantId>>,
    _tenant: Option<Turn<TenantId>>,
}

impl Share {
    /// Waits until the party may use another connection.
    async fn take_turn(&self, party: Party) -> Result<Taken, StoreError> {
        let mut taken = Taken::default();
        match party {
            Party::Tenant(tenant) => taken._tenant = Some(self.tenants.take(tenant, Caller::Member).await?),
            Party::Guest(tenant) => {
                taken._guest = Some(self.guests.take(tenant, Caller::Guest).await?);
                taken._tenant = Some(self.tenants.take(tenant, Caller::Guest).await?);
            }
            Party::Founder => taken._lane = Some(self.founders.take((), Caller::Guest).await?),
            Party::Lookup => taken._lane = Some(self.lookups.take((), Caller::Guest).await?),
            Party::Upkeep => taken._lane = Some(self.upkeep.take((), Caller::Member).await?),
            Party::Platform => {}
        }
        Ok(taken)
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("max_size", &self.max_size())
            .field("open", &self.open())
            .finish()
    }
}

impl Pool {
    /// A pool that connects to `url` when it is first used.
    ///
    /// # Errors
    /// [`StoreError::Other`] for a URL that cannot be read; the message does not repeat it, as it holds a password.
    pub fn new(url: &str, config: &PoolConfig) -> Result<Self, StoreError> {
        let options: PgConnectOptions = url
            .parse()
            .map_err(|_| StoreError::Other("the database URL cannot be read".into()))?;
        let options = options.application_name("tenantry").disable_statement_logging();
        // A pooler knows no such options at the start, and what was set for a session would be another's as well; so
        // there each transaction sets them for itself.
        let timeouts = config.timeouts.settings();
        let (options, per_transaction) = if config.behind_pooler {
            let set = timeouts.map(|(name, value)| format!("; SET LOCAL {name} = '{value}'"));
            (options.extra_float_digits(None), set.collect())
        } else {
            let plans = ("plan_cache_mode", "force_generic_plan".to_owned());
            let all: Vec<_> = timeouts.chain(config.generic_plans.then_some(plans)).collect();
            // An empty list would be sent as an option without a name.
            let options = if all.is_empty() {
                options
            } else {
                options.options(all)
            };
            (options, String::new())
        };
        let timeouts = Timeouts {
            wait: Some(config.acquire_timeout),
            create: Some(config.connect_timeout),
            recycle: Some(config.connect_timeout),
        };
        let connector = Connector {
            options,
            check_after_idle: config.check_after_idle,
            max_lifetime: config.max_lifetime,
            named_statements: !config.behind_pooler,
            home: None,
        };
        let share = |(number, size): (usize, usize)| {
            let connector = Connector {
                home: (number == 0).then(lasting_runtime).flatten(),
                ..connector.clone()
            };
            let connections = deadpool::managed::Pool::builder(connector)
                .max_size(size)
                .timeouts(timeouts)
                // Who waits takes the one that was left open for them, and not one that came back after it: that one would
                // lie there in a transaction.
                .queue_mode(QueueMode::Fifo)
                .runtime(Runtime::Tokio1)
                .build()
                .map_err(|error| StoreError::Other(error.to_string()))?;
            let (part, each) = match config.per_tenant {
                0 => (Part::Yielding(size.div_ceil(2)), size.div_ceil(2)),
                each => (Part::Fixed(each), each),
            };
            let fixed = |connections: usize| Part::Fixed(connections.max(1));
            Ok(Share {
                connections,
                tenants: Arc::new(Turns::new(part, config.queue)),
                guests: Arc::new(Turns::new(fixed(each / 4), config.queue)),
                founders: Arc::new(Turns::new(fixed(each / 4), config.queue)),
                lookups: Arc::new(Turns::new(fixed(size / 3), config.queue)),
                upkeep: Arc::new(Turns::new(fixed(1), config.queue)),
            })
        };
        let shares = shares(config.size.max(1), config.threads)
            .into_iter()
            .enumerate()
            .map(share)
            .collect::<Result<_, StoreError>>()?;
        Ok(Self {
            shares,
            acquire_timeout: config.acquire_timeout,
            queue: config.queue,
            prepares: !config.behind_pooler,
            per_transaction: per_transaction.into(),
            origin: Arc::new((url.to_owned(), config.clone())),
        })
    }

    /// A pool of its own to the same database, of so many connections, of which a tenant may use one: for transactions that last, so
    /// that they keep no connection from others.
    ///
    /// # Errors
    /// As for [`Pool::new`].
    pub fn beside(&self, size: usize) -> Result<Self, StoreError> {
        let (url, config) = self.origin.as_ref();
        let config = PoolConfig {
            size,
            threads: 0,
            per_tenant: 1,
            generic_plans: false,
            ..config.clone()
        };
        Self::new(url, &config)
    }

    /// How many connections it holds at the most.
    pub fn max_size(&self) -> usize {
        self.statuses().map(|status| status.max_size).sum()
    }

    /// How many connections are open now.
    pub fn open(&self) -> usize {
        self.statuses().map(|status| status.size).sum()
    }

    /// Opens all connections that this thread may use, so that no request waits for one to be opened: the password alone takes
    /// milliseconds of hashing, and who is in a thread's way is in the way of all its requests. What cannot be opened now is
    /// left to those who need it.
    pub async fn open_all(&self) {
        let connections = &self.share().connections;
        let mut open = Vec::new();
        while open.len() < connections.status().max_size
            && let Ok(connection) = connections.get().await
        {
            open.push(connection);
        }
    }

    /// Whether the server answers.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        super::ping(self).await
    }

    /// Closes the pool and its idle connections; those in use close when they are done.
    pub fn close(&self) {
        self.shares.iter().for_each(|share| share.connections.close());
    }

    /// Whether statements may be prepared by name.
    pub(super) fn prepares(&self) -> bool {
        self.prepares
    }

    /// What is sent to begin a transaction.
    pub(super) fn beginning<'a>(&self, sql: &'a str) -> Cow<'a, str> {
        if self.per_transaction.is_empty() {
            Cow::Borrowed(sql)
        } else {
            Cow::Owned(format!("{sql}{}", self.per_transaction))
        }
    }

    /// A connection for a party, when it is its turn.
    pub(super) async fn get(&self, party: Party) -> Result<Connection, StoreError> {
        let share = self.share();
        let taken = timeout(self.acquire_timeout, share.take_turn(party))
            .await
            .map_err(|_| no_connection())??;
        if share.connections.status().waiting > self.queue {
            return Err(no_connection());
        }
        let waiting = Waiting(Some(&share.connections));
        // One that got none in time has gone away, too.
        let object = share.connections.get().await.map_err(unavailable)?;
        waiting.ended();
        Ok(Connection {
            object: Some(object),
            _taken: taken,
        })
    }

    fn share(&self) -> &Share {
        match (HOME.with(|home| *home), self.shares.len()) {
            (Some(thread), shares @ 2..) => &self.shares[1 + thread % (shares - 1)],
            (Some(_) | None, _) => &self.shares[0],
        }
    }

    fn statuses(&self) -> impl Iterator<Item = Status> {
        self.shares.iter().map(|share| share.connections.status())
    }
}

thread_local! {
    /// The number of this thread among those with a runtime of their own; `None` for the threads of a shared one.
    static HOME: Option<usize> = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let alone = Handle::try_current().is_ok_and(|it| it.runtime_flavor() == RuntimeFlavor::CurrentThread);
        alone.then(|| NEXT.fetch_add(1, Ordering::Relaxed))
    };
}

/// How many connections everybody and each of the threads gets. With fewer than two for each there is nothing to share
/// out.
fn shares(size: usize, threads: usize) -> Vec<usize> {
    let each = size.saturating_sub(1) / threads.max(1);
    if threads == 0 || each < 2 {
        return vec![size];
    }
    let mut shares = vec![size - each * threads];
    shares.extend(std::iter::repeat_n(each, threads));
    shares
}

/// The runtime of all threads, where the pool is made in one. It outlasts the runtimes of single threads.
fn lasting_runtime() -> Option<Handle> {
    Handle::try_current()
        .ok()
        .filter(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread)
}

/// Somebody who waits for a connection, and may go away before they have it.
struct Waiting<'share>(Option<&'share deadpool::managed::Pool<Connector>>);

impl Waiting<'_> {
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Waiting<'_> {
    /// A connection may have been left open for them. With others in the queue it goes to the next one; otherwise it would
    /// lie there in a transaction until somebody comes.
    fn drop(&mut self) {
        if let Some(connections) = self.0
            && connections.status().waiting == 0
        {
            connections.retain(|open, _| !open.left_open);
        }
    }
}

/// A connection in use. Dropped, it is closed; only [`Connection::give_back`] lets it be used again.
pub(super) struct Connection {
    object: Option<Object<Connector>>,
    _taken: Taken,
}

impl Connection {
    pub(super) fn driver(&mut self) -> &mut PgConnection {
        // The object is only ever taken by `give_back`, which consumes the connection, and by `drop`.
        match self.object.as_mut() {
            Some(object) => &mut object.driver,
            None => unreachable!("a connection is used after it was given back"),
        }
    }

    /// Whether statements may be prepared under a name and used again in a later transaction.
    pub(super) fn named_statements(&self) -> bool {
        self.object.as_ref().is_some_and(|object| object.named_statements)
    }

    /// Whether a statement of that name has still to be prepared on it. Asked once: when the message fails that prepares it,
    /// the connection is not used again.
    pub(super) fn has_to_prepare(&mut self, name: &'static str) -> bool {
        self.object.as_mut().is_some_and(|object| {
            let new = !object.looked_up.contains(&name);
            if new {
                object.looked_up.push(name);
            }
            new
        })
    }

    pub(super) fn give_back(mut self) {
        drop(self.object.take());
    }

    /// Whether more want a connection of this share than there may be. The pool's own count of those who wait includes those
    /// who are opening a connection: they need no other.
    pub(super) fn is_waited_for(&self) -> bool {
        let pool = self.object.as_ref().and_then(Object::pool);
        pool.is_some_and(|pool| {
            let status = pool.status();
            status.waiting > 0 && status.size + status.waiting > status.max_size
        })
    }

    /// Gives it to a request that waits for it, with its transaction still open: the request has to end it first.
    pub(super) fn hand_over(mut self) {
        let pool = self.object.as_ref().and_then(Object::pool);
        if let Some(object) = self.object.as_mut() {
            object.left_open = true;
        }
        self.give_back();
        // The request may have gone away on another thread just now.
        if let Some(pool) = pool
            && pool.status().available > 0
        {
            pool.retain(|open, _| !open.left_open);
        }
    }

    /// Whether a transaction is open on it that has to be ended first. Asked once.
    pub(super) fn take_left_open(&mut self) -> bool {
        self.object
            .as_mut()
            .is_some_and(|object| std::mem::take(&mut object.left_open))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            // Whatever state it is in: closing the socket makes the server roll back and forget the tenant.
            drop(Object::take(object));
        }
    }
}

#[derive(Clone)]
struct Connector {
    options: PgConnectOptions,
    check_after_idle: Duration,
    max_lifetime: Duration,
    named_statements: bool,
    /// The runtime that connections belong to; that of whoever opens them where absent. A connection ends with the runtime it
    /// was opened on, so one that several threads use must not be opened on a thread that ends before the others.
    home: Option<Handle>,
}

impl Connector {
    async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let Some(home) = &self.home else {
            return self.options.connect().await;
        };
        let options = self.options.clone();
        // The set aborts the task when the caller stops waiting.
        let mut connecting = JoinSet::new();
        connecting.spawn_on(async move { options.connect().await }, home);
        match connecting.join_next().await {
            Some(Ok(connected)) => connected,
            Some(Err(error)) => Err(std::io::Error::other(error).into()),
            None => Err(sqlx::Error::WorkerCrashed),
        }
    }
}

struct Open {
    driver: PgConnection,
    named_statements: bool,
    replace_at: Instant,
    /// Its last transaction, which only read, has not been ended.
    left_open: bool,
    /// What has been prepared for [`Lookup`](super::Lookup)s, by name.
    looked_up: Vec<&'static str>,
}

impl Manager for Connector {
    type Type = Open;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<Open, sqlx::Error> {
        let mut driver = self.connect().await?;
        refuse_standby(&mut driver).await?;
        // Connections that were opened together are not replaced together: up to a tenth earlier, by their address
        // in memory, which is as good as chance here.
        let spread = self.max_lifetime / 10 * u32::from((&raw const driver as usize >> 4) as u8) / 256;
        Ok(Open {
            driver,
            named_statements: self.named_statements,
            replace_at: Instant::now() + self.max_lifetime - spread,
            left_open: false,
            looked_up: Vec::new(),
        })
    }

    async fn recycle(&self, open: &mut Open, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        if Instant::now() >= open.replace_at {
            return Err(RecycleError::message("the connection has reached its lifetime"));
        }
        if metrics.last_used() > self.check_after_idle {
            open.driver.ping().await?;
        }
        Ok(())
    }
}

/// A standby answers reads from the past and refuses writes. A name may lead to one for a while after a failover, and a pool
/// would keep such a connection long after.
async fn refuse_standby(driver: &mut PgConnection) -> Result<(), sqlx::Error> {
    let row = sqlx::raw_sql("SELECT pg_is_in_recovery()")
        .fetch_one(driver)
        .await?;
    if row.try_get(0)? {
        return Err(std::io::Error::other("the server is a standby, in recovery").into());
    }
    Ok(())
}

fn no_connection() -> StoreError {
    StoreError::Unavailable("no database connection became free in time".into())
}

fn unavailable(error: PoolError<sqlx::Error>) -> StoreError {
    match error {
        PoolError::Timeout(_) => no_connection(),
        PoolError::Backend(error) => {
            StoreError::Unavailable(format!("cannot connect to the database: {error}"))
        }
        PoolError::Closed => StoreError::Unavailable("the connection pool is closed".into()),
        PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => StoreError::Other(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::shares;

    proptest! {
        #[test]
        fn the_shares_are_the_whole_and_nobody_has_none(size in 1_usize..2_000, threads in 0_usize..200) {
            let shares = shares(size, threads);
            prop_assert_eq!(shares.iter().sum::<usize>(), size);
            prop_assert!(shares[0] >= 1 && shares[1..].iter().all(|share| *share >= 2));
            prop_assert!(shares.len() == 1 || shares.len() == threads + 1);
        }
    }
}
