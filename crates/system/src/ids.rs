use tenantry_domain::kernel::IdSource;
use uuid::Uuid;

/// `UUIDv7` ids (RFC 9562 section 5.7), strictly increasing within the process.
///
/// Within a millisecond a 42-bit counter with a random start decides the order (RFC 9562 section 6.2,
/// method 1); 32 further bits are random, so that ids cannot be guessed from one another in practice. When
/// the machine's clock steps back, ids continue from the last millisecond seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemIds;

impl IdSource for SystemIds {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place where ids come from the machine"
    )]
    fn uuid(&self) -> Uuid {
        // The counter behind `now_v7` is shared by the whole process, hence no state here.
        Uuid::now_v7()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_version_7_and_strictly_increasing() {
        let ids: Vec<Uuid> = (0..10_000).map(|_| SystemIds.uuid()).collect();
        assert!(ids.iter().all(|id| id.get_version_num() == 7));
        assert!(ids.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn threads_never_get_the_same_id_and_each_sees_them_increase() {
        let make = || (0..5_000).map(|_| SystemIds.uuid()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(make)).collect();
        let made: Vec<Vec<Uuid>> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(made.iter().all(|ids| ids.is_sorted_by(|a, b| a < b)));
        assert_eq!(made.concat().into_iter().collect::<BTreeSet<_>>().len(), 20_000);
    }
}
