//! What noting an answered call costs before its answer is sent, with the file on this machine's disk: `make bench`, or
//! `cargo bench -p tenantry-system --bench spool`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use tenantry_domain::kernel::{Clock as _, IdSource as _, TenantId, UserId};
use tenantry_domain::usage::{Call, CallSpool as _};
use tenantry_system::{FileSpool, SystemClock, SystemIds};

/// So many calls are noted before they are forgotten, as a flush does while nobody measures.
const FLUSHED: u64 = 100_000;

fn measure(criterion: &mut Criterion) {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("spool");
    let spool = FileSpool::new(Some(folder.clone()), format!("bench-{}", SystemIds.uuid()));
    if spool.prepare().is_err() {
        return;
    }
    let clock = SystemClock::new();
    let callers: Vec<_> = (0..1_000)
        .map(|_| (TenantId::from(SystemIds.uuid()), UserId::from(SystemIds.uuid())))
        .collect();
    let note = |calls: u64| {
        let began = Instant::now();
        for (_, (tenant, user)) in (0..calls).zip(callers.iter().cycle()) {
            spool.note(Call {
                tenant: *tenant,
                user: Some(*user),
                at: clock.now(),
            });
        }
        let took = began.elapsed();
        for batch in spool.batches() {
            // What cannot be removed is still there for the next time.
            let _ = spool.remove(&batch);
        }
        took
    };
    criterion.bench_function("a call noted in a file on disk", |bencher| {
        bencher.iter_custom(|calls| {
            let whole = (0..calls / FLUSHED).map(|_| note(FLUSHED)).sum::<Duration>();
            whole + note(calls % FLUSHED)
        });
    });
    // A figure of what went into memory for want of a disk would be one of something else.
    assert_eq!(spool.tally().remembered, 0);
    let _ = std::fs::remove_dir_all(folder);
}

criterion_group!(calls, measure);
criterion_main!(calls);
