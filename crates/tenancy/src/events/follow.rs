//! Waiting for events of a tenant. Streams and waiting requests of a tenant share the looks at its feed, so that many of them cost the database
//! as much as one: each asks whether there is something behind its position, and reads only then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tenantry_domain::kernel::{Permission, TenantId};
use tokio::time::{Instant, sleep};

use crate::events::feed;
use crate::events::publish::EventError;
use crate::{Cx, EventListener, Tenancy};

/// How old a look may be when nothing was published in this process. What another process has published is found after it.
const LOOK: Duration = Duration::from_secs(1);

/// The looks of this process at feeds that are followed, by tenant.
#[derive(Debug, Default)]
pub struct FeedLooks {
    of_tenant: Mutex<HashMap<TenantId, Weak<Looked>>>,
    count: AtomicU64,
}

/// The last look at the feed of a tenant. Its lock is held during a look, so that there is one at a time.
type Looked = tokio::sync::Mutex<Look>;

#[derive(Debug, Default)]
struct Look {
    began: Option<Instant>,
    newest: i64,
}

impl FeedLooks {
    /// Returns how many looks there were.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn of(&self, tenant: TenantId) -> Arc<Looked> {
        let mut all = self.of_tenant.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = all.get(&tenant).and_then(Weak::upgrade) {
            return there;
        }
        // Looks without a follower are removed when another tenant is followed.
        all.retain(|_, looked| looked.strong_count() > 0);
        let looked = Arc::default();
        all.insert(tenant, Arc::downgrade(&looked));
        looked
    }
}

impl Tenancy {
    /// Returns the looks of this process at feeds that are followed.
    pub fn feed_looks(&self) -> Arc<FeedLooks> {
        self.state()
    }
}

/// Follows the feed of a tenant from its creation on.
#[derive(Debug)]
pub struct FeedFollower {
    tenant: TenantId,
    listener: EventListener,
    looks: Arc<FeedLooks>,
    looked: Arc<Looked>,
    /// A look that began before it is too old.
    not_before: Instant,
}

impl FeedFollower {
    /// Begins to follow the feed of the scope's tenant.
    ///
    /// # Errors
    /// [`EventError`].
    pub fn new(cx: &Cx) -> Result<Self, EventError> {
        cx.require(Permission::ReadEvents)?;
        let (tenant, looks) = (cx.scope().tenant(), cx.app().feed_looks());
        Ok(Self {
            tenant,
            listener: cx.app().event_signals().listen(),
            looked: looks.of(tenant),
            looks,
            not_before: Instant::now(),
        })
    }

    /// Waits until there may be other events: until this process has published some of the tenant, or for about a second.
    pub async fn wait(&mut self) {
        tokio::select! {
            () = self.listener.published(self.tenant) => self.not_before = Instant::now(),
            () = sleep(LOOK) => self.not_before = Instant::now().checked_sub(LOOK).unwrap_or(self.not_before),
        }
    }

    /// Returns whether there is an event behind a position, with the look of another follower where that is recent enough.
    ///
    /// # Errors
    /// [`EventError`]; also when `cx` is of another tenant than the follower.
    pub async fn is_behind(&self, cx: &Cx, position: i64) -> Result<bool, EventError> {
        cx.require(Permission::ReadEvents)?;
        if cx.scope().tenant() != self.tenant {
            return Err(EventError::NotFound);
        }
        let mut look = self.looked.lock().await;
        if look.newest <= position && look.began.is_none_or(|began| began < self.not_before) {
            let began = Instant::now();
            self.looks.count.fetch_add(1, Ordering::Relaxed);
            look.newest = feed::newest(cx).await?;
            look.began = Some(began);
        }
        Ok(look.newest > position)
    }
}
