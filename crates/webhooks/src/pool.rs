use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::connection::Connection;

/// What a connection leads to. A connection is used again only where all of it is the same: the address was checked, and the certificate
/// is for the host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Route {
    pub(crate) address: SocketAddr,
    pub(crate) host: String,
    pub(crate) is_https: bool,
}

/// Connections that wait for the next message to the same receiver.
pub(crate) struct Pool {
    idle: Mutex<Idle>,
    timeout: Duration,
    per_route: usize,
    most: usize,
}

#[derive(Default)]
struct Idle {
    routes: HashMap<Route, Vec<(Connection, Instant)>>,
    count: usize,
    /// Whether a task closes what has been idle for too long. It ends when nothing is left.
    is_swept: bool,
}

impl Pool {
    pub(crate) fn new(timeout: Duration, per_route: usize, most: usize) -> Arc<Self> {
        Arc::new(Self {
            idle: Mutex::default(),
            timeout,
            per_route,
            most,
        })
    }

    /// The open connection to a route that was used last, if there is one.
    pub(crate) fn take(&self, route: &Route) -> Option<Connection> {
        let mut idle = self.lock();
        let connections = idle.routes.get_mut(route)?;
        let mut dropped = 0;
        let found = loop {
            let Some((connection, since)) = connections.pop() else {
                break None;
            };
            dropped += 1;
            if !connection.is_closed() && since.elapsed() < self.timeout {
                break Some(connection);
            }
        };
        if connections.is_empty() {
            idle.routes.remove(route);
        }
        idle.count -= dropped;
        found
    }

    /// Keeps a connection for the next message, unless there are enough.
    pub(crate) fn put(self: &Arc<Self>, route: Route, connection: Connection) {
        let mut idle = self.lock();
        if connection.is_closed() || idle.count >= self.most {
            return;
        }
        let connections = idle.routes.entry(route).or_default();
        if connections.len() >= self.per_route {
            return;
        }
        connections.push((connection, Instant::now()));
        idle.count += 1;
        if !std::mem::replace(&mut idle.is_swept, true) {
            tokio::spawn(Self::sweep(Arc::downgrade(self), self.timeout));
        }
    }

    /// Closes connections that have been idle for the timeout, until there are none or the pool is gone.
    async fn sweep(pool: std::sync::Weak<Self>, timeout: Duration) {
        loop {
            tokio::time::sleep(timeout).await;
            let Some(pool) = pool.upgrade() else { return };
            let mut idle = pool.lock();
            for connections in idle.routes.values_mut() {
                connections
                    .retain(|(connection, since)| !connection.is_closed() && since.elapsed() < timeout);
            }
            idle.routes.retain(|_, connections| !connections.is_empty());
            idle.count = idle.routes.values().map(Vec::len).sum();
            if idle.count == 0 {
                idle.is_swept = false;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
