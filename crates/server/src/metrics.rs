//! What is measured besides requests, and the port that measurements may have of their own.

use std::sync::Arc;

use actix_web::dev::ServerHandle;
use actix_web::web::{self, Data};
use actix_web::{App, HttpServer};
use tenantry_http::metrics::{Metrics, Reading, answer};
use tenantry_persistence::Pool;
use tenantry_system::CachedDirectory;

use crate::CommandError;
use crate::boot::Booted;
use crate::settings::Settings;

/// Adds pools, cache and uptime to what is measured.
pub fn register(metrics: &Metrics, booted: &Booted) {
    pool(
        metrics,
        &booted.runtime,
        ["database_connections_open", "database_connections_max"],
    );
    pool(
        metrics,
        &booted.platform,
        ["platform_connections_open", "platform_connections_max"],
    );
    let reading = |read: fn(&CachedDirectory) -> Reading| {
        let cache = Arc::clone(&booted.cache);
        move || read(&cache)
    };
    metrics.register(
        "cache_hits",
        "Memberships and names of tenants answered from memory",
        reading(|cache| Reading::Total(cache.stats().hits)),
    );
    metrics.register(
        "cache_loads",
        "Memberships and names of tenants read from the database",
        reading(|cache| Reading::Total(cache.stats().loads)),
    );
    metrics.register(
        "cache_entries",
        "Memberships and names of tenants that are remembered",
        reading(|cache| Reading::Level(cache.stats().entries as f64)),
    );
}

/// Serves `/metrics` on the port of its own, when it has one.
pub fn serve(settings: &Settings, metrics: &Arc<Metrics>) -> Result<Option<ServerHandle>, CommandError> {
    let (host, port) = (settings.server.host.as_str(), settings.metrics.port);
    if !settings.metrics.enabled || port == 0 {
        return Ok(None);
    }
    let metrics = Data::from(Arc::clone(metrics));
    let failed = |error: std::io::Error| {
        CommandError::Other(format!(
            "cannot listen on {host}:{port}: {error}; see metrics.port"
        ))
    };
    let scrape = async |metrics: Data<Metrics>| answer(&metrics);
    let app = move || {
        App::new()
            .app_data(metrics.clone())
            .route("/metrics", web::get().to(scrape))
    };
    let server = HttpServer::new(app).workers(1).disable_signals();
    let server = server.bind((host, port)).map_err(failed)?.run();
    let handle = server.handle();
    tokio::spawn(server);
    Ok(Some(handle))
}

fn pool(metrics: &Metrics, pool: &Pool, [open, max]: [&'static str; 2]) {
    let (now, limit) = (pool.clone(), pool.clone());
    metrics.register(open, "Connections that are open", move || {
        Reading::Level(now.open() as f64)
    });
    metrics.register(max, "Connections there may be", move || {
        Reading::Level(limit.max_size() as f64)
    });
}
