//! The broker that events are exported to: what the configuration says of it.

use std::sync::Arc;

use tenantry_domain::events::EventExport;
use tenantry_redis::{Redis, RedisEventSink};

use crate::config::{EventExportConfig, EventExportKind};

/// Returns the broker, where the configuration names one. It is not connected to yet.
pub fn broker(export: &EventExportConfig, redis: Option<&Redis>) -> Option<EventExport> {
    let redis = match export.kind {
        EventExportKind::Off => return None,
        EventExportKind::Redis => redis?.clone(),
    };
    let timeout = export.timeout();
    Some(EventExport {
        sink: Arc::new(RedisEventSink::new(
            redis,
            &export.stream,
            export.max_length,
            timeout,
        )),
        timeout,
        batch: export.batch,
    })
}
