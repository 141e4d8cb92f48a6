//! The advisory locks that are taken: all of them, so that no two share a key by accident.
//!
//! PostgreSQL keeps two spaces of keys apart: keys of two 32-bit numbers and keys of one 64-bit number. A lock with a fixed
//! meaning has a key of the first kind: the number of this application, and a class of its own. A lock whose key contains
//! ids or text of a caller has a key of the second kind: the first 64 bits of a SHA-256 over its class and these parts.
//! PostgreSQL's own `hashtextextended` can be inverted, so a caller could choose a text that has the key of any other lock.

/// A lock of a class of its own, held until the transaction ends. 1952804449 is "tena" in ASCII.
macro_rules! fixed {
    ($class:literal) => {
        concat!("SELECT pg_advisory_xact_lock(1952804449, ", $class, ")")
    };
}

/// The key of a lock over parts that callers choose; the class comes first, so that classes have no key in common.
macro_rules! hashed {
    ($function:literal, $class:literal, $parts:literal) => {
        concat!(
            "SELECT ",
            $function,
            "(('x' || encode(substr(sha256(convert_to(concat_ws(' ', '",
            $class,
            "', ",
            $parts,
            "), 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint) AS locked"
        )
    };
}

/// Claims of jobs are made one after another, for a few milliseconds each: otherwise two workers that count a tenant's
/// running jobs at once would both fill its share.
pub(crate) const CLAIM_JOBS: &str = fixed!(1);

/// Servers that start together store plans one after another.
pub(crate) const KEEP_PLANS: &str = fixed!(2);

/// Changes of flags' definitions are made one after another: each is checked against all others.
pub(crate) const EDIT_FLAGS: &str = fixed!(3);

/// Signing keys are changed by one transaction at a time: what may be added or deleted depends on the others.
pub(crate) const EDIT_SIGNING_KEYS: &str = fixed!(4);

/// `$1` tenant, `$2` user, `$3` route, `$4` key: the request with an idempotency key that is being processed. The lock is
/// tried and not waited for, because the connection that waits is missing elsewhere. Two keys with one hash cause a
/// needless "still running", and nothing worse.
pub(crate) const KEYED_REQUEST: &str = hashed!(
    "pg_try_advisory_xact_lock",
    "idempotency",
    "$1::uuid, $2::uuid, $3::text, $4::text"
);

/// `$1` tenant: its rollups are computed by one at a time. The lock is waited for, since its holder is done soon.
pub(crate) const ROLL_UP_USAGE: &str = hashed!("pg_advisory_xact_lock", "usage", "$1::uuid");

/// `$1` tenant: its mails to addresses that nobody has verified are counted one after another.
pub(crate) const COUNT_MAIL_OF_TENANT: &str = hashed!("pg_advisory_xact_lock", "mail of", "$1::uuid");

/// `$1` no tenant, `$2` digest of an address: mails to it are counted one after another.
pub(crate) const COUNT_MAIL_TO: &str = hashed!(
    "pg_advisory_xact_lock",
    "mail to",
    "$1::uuid, encode($2::bytea, 'hex')"
);

/// `$1` tenant: its events are numbered by one at a time. The lock is tried: the one who has it numbers the others' events too.
pub(crate) const PUBLISH_EVENTS: &str = hashed!("pg_try_advisory_xact_lock", "events", "$1::uuid");

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_advisory_lock_has_a_key_of_its_own() {
        let fixed = [CLAIM_JOBS, KEEP_PLANS, EDIT_FLAGS, EDIT_SIGNING_KEYS];
        let hashed = [
            KEYED_REQUEST,
            ROLL_UP_USAGE,
            COUNT_MAIL_OF_TENANT,
            COUNT_MAIL_TO,
            PUBLISH_EVENTS,
        ];
        for sql in fixed {
            assert!(
                sql.starts_with("SELECT pg_advisory_xact_lock(1952804449, "),
                "{sql}"
            );
        }
        for sql in hashed {
            assert!(sql.contains("sha256(") && sql.contains("$1::uuid"), "{sql}");
        }
        let keys: BTreeSet<_> = fixed.iter().chain(&hashed).collect();
        assert_eq!(keys.len(), fixed.len() + hashed.len());
    }
}
