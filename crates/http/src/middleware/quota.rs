//! The quota of API calls: a request takes one, after the rate limits and before its body is read.

use std::sync::Arc;

use actix_web::{HttpRequest, http::Method};
use tenantry_billing::usage::quota_lending;
use tenantry_domain::kernel::Limit;
use tenantry_domain::operations::QuotaGate;
use tenantry_domain::tenant::Admission;
use tenantry_domain::usage::{MOST_UNITS, MeterKey};

use crate::{Api, ApiError};

/// What works although the quota is used up, and takes nothing of it: whoever is refused can see why, see what they
/// have, and pay. Everything below these paths, with any method or with those that only read.
const ALWAYS: [(&str, Methods); 7] = [
    // A leaked key that used the quota up can be revoked.
    ("/api/v1/api-keys", Methods::All),
    ("/api/v1/auth", Methods::All),
    ("/api/v1/billing", Methods::All),
    ("/api/v1/entitlements", Methods::All),
    ("/api/v1/quotas", Methods::All),
    ("/api/v1/tenant", Methods::Safe),
    ("/api/v1/usage", Methods::All),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Methods {
    All,
    Safe,
}

/// Holds tenants to the hard limits of their API calls.
#[derive(Debug, Clone)]
pub struct Quotas {
    gate: Arc<dyn QuotaGate>,
    calls: MeterKey,
}

impl Quotas {
    /// Quotas as this gate decides about them.
    pub fn new(gate: Arc<dyn QuotaGate>) -> Self {
        Self {
            gate,
            calls: MeterKey::api_calls(),
        }
    }
}

/// Takes a call from the tenant's quota, where it has one.
///
/// # Errors
/// `quota_exceeded`; `unavailable` when nobody can say whether there is one left.
pub(crate) async fn take_call(
    request: &HttpRequest,
    api: &Api,
    admission: &Admission,
) -> Result<(), ApiError> {
    let Some(quotas) = &api.quotas else { return Ok(()) };
    let tenant = &admission.tenant;
    let Limit::Of(limit) = quota_lending::limit(&api.app, tenant, &quotas.calls) else {
        return Ok(());
    };
    if is_always(request.method(), &request.match_pattern().unwrap_or_default()) {
        return Ok(());
    }
    let take = quotas.gate.take(tenant.id, &quotas.calls, limit.min(MOST_UNITS));
    Ok(take.decision().await?)
}

fn is_always(method: &Method, pattern: &str) -> bool {
    ALWAYS.iter().any(|(path, methods)| {
        let below = pattern
            .strip_prefix(path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        below && (*methods == Methods::All || method.is_safe())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use chrono::Duration;
    use tenantry_domain::kernel::{TenantId, Time};
    use tenantry_domain::operations::QuotaTake;
    use tenantry_domain::usage::QuotaExceeded;

    use super::*;
    use crate::{
        HttpConfig,
        testing::{Call, SOME_ID, api},
    };

    /// Counts what is taken, and has nothing left.
    #[derive(Debug, Default)]
    struct Empty(Mutex<Vec<u64>>);

    impl QuotaGate for Empty {
        fn take<'a>(&'a self, _: TenantId, meter: &'a MeterKey, limit: u64) -> QuotaTake<'a> {
            self.0.lock().unwrap().push(limit);
            let now = Time::UNIX_EPOCH;
            QuotaTake::Ready(Err(QuotaExceeded {
                meter: meter.clone(),
                limit,
                used: limit,
                resets_at: now + Duration::milliseconds(61_001),
                asked_at: now,
            }
            .into()))
        }
    }

    #[actix_web::test]
    async fn who_has_nothing_left_is_told_so_before_the_body_is_read_and_can_still_see_why() {
        let gate = Arc::new(Empty::default());
        let api = api(HttpConfig::default()).with_quotas(Quotas::new(gate.clone()));
        let reply = Call::post("/api/v1/projects", "nonsense")
            .bearer("admin")
            .send(&api)
            .await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (429, "quota_exceeded")
        );
        assert_eq!(reply.header("Retry-After"), Some("62"));
        let problem = reply.json();
        assert_eq!(
            (
                &problem["meter"],
                &problem["limit"],
                &problem["used"],
                &problem["resets_at"]
            ),
            (
                &"api_calls".into(),
                &10_000.into(),
                &10_000.into(),
                &"1970-01-01T00:01:01.001Z".into()
            )
        );
        assert_eq!(gate.0.lock().unwrap().len(), 1);
        let read = format!("/api/v1/projects/{SOME_ID}");
        assert_eq!(
            Call::get(&read).bearer("viewer").send(&api).await.code(),
            "quota_exceeded"
        );
        assert_eq!(gate.0.lock().unwrap().len(), 2);
        for path in [
            "/api/v1/auth/me",
            "/api/v1/tenant",
            "/api/v1/tenant/capabilities",
            "/api/v1/entitlements",
            "/api/v1/quotas",
        ] {
            let reply = Call::get(path).bearer("viewer").send(&api).await;
            assert_ne!(reply.status.as_u16(), 429, "{path}");
        }
        assert_eq!(gate.0.lock().unwrap().len(), 2, "they take nothing");
        let change = Call::new(Method::PATCH, "/api/v1/tenant")
            .bearer("admin")
            .send(&api)
            .await;
        assert_eq!(change.code(), "quota_exceeded");
    }

    #[actix_web::test]
    async fn who_is_not_admitted_takes_nothing() {
        let gate = Arc::new(Empty::default());
        let api = api(HttpConfig::default()).with_quotas(Quotas::new(gate.clone()));
        let calls = [
            Call::get("/api/v1/projects"),
            Call::get("/api/v1/projects").bearer("forged"),
            Call::get("/api/v1/projects")
                .bearer("admin")
                .header("X-Tenant-Slug", "globex"),
            Call::get("/nothing").bearer("admin"),
        ];
        for call in calls {
            assert_ne!(call.send(&api).await.code(), "quota_exceeded");
        }
        assert_eq!(*gate.0.lock().unwrap(), [0_u64; 0]);
    }

    #[test]
    fn what_only_begins_like_it_is_not_always() {
        assert!(is_always(&Method::POST, "/api/v1/billing/portal"));
        assert!(!is_always(&Method::GET, "/api/v1/tenants"));
        assert!(!is_always(&Method::POST, "/api/v1/tenant/exports"));
    }
}
