use std::sync::Arc;

use tenantry_domain::kernel::{Announcer, Change, Memory};

/// Several memories, of which each hears everything.
#[derive(Clone, Default)]
pub struct Memories(Vec<Arc<dyn Memory>>);

impl std::fmt::Debug for Memories {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Memories").field(&self.0.len()).finish()
    }
}

impl Memories {
    /// These together.
    pub fn new(memories: impl IntoIterator<Item = Arc<dyn Memory>>) -> Self {
        Self(memories.into_iter().collect())
    }
}

impl Memory for Memories {
    fn forget(&self, change: Change) {
        self.0.iter().for_each(|memory| memory.forget(change));
    }

    fn hears(&self, others: bool) {
        self.0.iter().for_each(|memory| memory.hears(others));
    }
}

/// Where there is one instance only.
impl Announcer for Memories {
    fn announce(&self, change: Change) {
        self.forget(change);
    }
}
