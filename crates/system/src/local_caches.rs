use std::sync::Arc;

use tenantry_domain::kernel::{Change, InvalidatedCache, InvalidationPublisher};

/// The caches of this process; each gets every invalidation.
#[derive(Clone, Default)]
pub struct LocalCaches(Vec<Arc<dyn InvalidatedCache>>);

impl std::fmt::Debug for LocalCaches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LocalCaches").field(&self.0.len()).finish()
    }
}

impl LocalCaches {
    /// Puts these caches together.
    pub fn new(caches: impl IntoIterator<Item = Arc<dyn InvalidatedCache>>) -> Self {
        Self(caches.into_iter().collect())
    }
}

impl InvalidatedCache for LocalCaches {
    fn invalidate(&self, change: Change) {
        self.0.iter().for_each(|cache| cache.invalidate(change));
    }

    fn set_live(&self, live: bool) {
        self.0.iter().for_each(|cache| cache.set_live(live));
    }
}

/// For a single instance, which has no other caches to invalidate.
impl InvalidationPublisher for LocalCaches {
    fn publish(&self, change: Change) {
        self.invalidate(change);
    }
}
