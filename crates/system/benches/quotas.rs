//! What deciding about a quota on the request path costs where a block is held: `make bench`, or
//! `cargo bench -p tenantry-system --bench quotas`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use criterion::{Criterion, criterion_group, criterion_main};
use tenantry_domain::kernel::{Clock as _, IdSource as _, Period, TenantId};
use tenantry_domain::operations::{QuotaAsk, QuotaGate as _, QuotaLender, QuotaLoan, QuotaTake};
use tenantry_domain::tenant::Denied;
use tenantry_domain::usage::{MeterKey, QuotaExceeded};
use tenantry_system::{QuotaLeases, SystemClock, SystemIds};

/// Has as much as anybody wants.
struct Endless(SystemClock);

#[async_trait]
impl QuotaLender for Endless {
    async fn lend(&self, _: TenantId, meter: &MeterKey, ask: &QuotaAsk) -> Result<QuotaLoan, Denied> {
        let now = self.0.now();
        let period = Period::day_of(now);
        Ok(QuotaLoan {
            period,
            bought: ask.now,
            lease: Some((SystemIds.uuid().into(), 1 << 40)),
            standing: QuotaExceeded {
                meter: meter.clone(),
                limit: 1 << 50,
                used: 0,
                resets_at: period.end,
                asked_at: now,
            },
        })
    }
}

fn measure(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let Ok(runtime) = runtime else { return };
    let _entered = runtime.enter();
    let lender = Arc::new(Endless(SystemClock::new()));
    let ttl = Duration::from_secs(300);
    let gate = QuotaLeases::new(lender, Arc::new(SystemClock::new()), SystemIds.uuid(), ttl);
    let meter = MeterKey::api_calls();
    let tenants: Vec<_> = (0..1_000).map(|_| TenantId::from(SystemIds.uuid())).collect();
    let take = |tenant: TenantId| {
        let take = gate.take(tenant, &meter, 1 << 50);
        match take {
            QuotaTake::Ready(decision) => decision.is_ok(),
            pending @ QuotaTake::Pending(_) => runtime.block_on(pending.decision()).is_ok(),
        }
    };
    for tenant in &tenants {
        take(*tenant);
    }
    criterion.bench_function("a quota of which a block is held", |bencher| {
        let mut next = 0;
        bencher.iter(|| {
            next = (next + 1) % tenants.len();
            black_box(take(tenants[next]))
        });
    });
}

criterion_group!(quotas, measure);
criterion_main!(quotas);
