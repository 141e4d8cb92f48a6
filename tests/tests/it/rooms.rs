//! The rooms of the domain and of billing: which may use which, and that no two files need each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// A crate with rooms.
struct House {
    /// Its sources, below the root of the repository.
    sources: &'static str,
    /// How many files it has at least.
    files: usize,
    /// The rooms, each with those that it may use. A room may only use those before it, so there is no circle.
    rooms: &'static [(&'static str, &'static [&'static str])],
    /// Files that need each other today. The list may only become shorter.
    circles: &'static [&'static [&'static str]],
}

const HOUSES: [House; 2] = [
    House {
        sources: "crates/domain/src",
        files: 60,
        rooms: DOMAIN_ROOMS,
        circles: DOMAIN_CIRCLES,
    },
    House {
        sources: "crates/billing/src",
        files: 25,
        rooms: BILLING_ROOMS,
        circles: BILLING_CIRCLES,
    },
];

const DOMAIN_ROOMS: &[(&str, &[&str])] = &[
    ("kernel", &[]),
    ("usage", &["kernel"]),
    ("plans", &["kernel", "usage"]),
    ("identity", &["kernel"]),
    ("tenant", &["kernel", "plans", "identity"]),
    ("audit", &["kernel"]),
    ("work", &["kernel", "identity"]),
    ("customization", &["kernel", "plans", "identity", "tenant"]),
    ("flags", &["kernel", "tenant"]),
    ("operations", &["kernel", "usage", "identity", "tenant", "flags"]),
    ("billing", &["kernel", "usage", "operations"]),
    (
        "store",
        &[
            "kernel",
            "usage",
            "identity",
            "tenant",
            "audit",
            "work",
            "customization",
            "flags",
            "operations",
            "billing",
        ],
    ),
];

const BILLING_ROOMS: &[(&str, &[&str])] = &[
    ("kernel", &[]),
    ("usage", &["kernel"]),
    ("plans", &["kernel", "usage"]),
    ("billing", &["kernel", "usage", "plans"]),
    ("handlers", &["usage", "billing"]),
];

const BILLING_CIRCLES: &[&[&str]] = &[
    &[
        "billing/billing.rs",
        "billing/billing_customer.rs",
        "billing/billing_provision.rs",
        "billing/billing_surplus.rs",
        "billing/billing_sync.rs",
        "billing/meter_report.rs",
    ],
    &["plans/plan_book.rs", "plans/rates.rs"],
    &[
        "usage/metering.rs",
        "usage/quota.rs",
        "usage/quota_drift.rs",
        "usage/quota_recovery.rs",
        "usage/usage.rs",
    ],
];

const DOMAIN_CIRCLES: &[&[&str]] = &[
    &["customization/branding.rs", "customization/setting.rs"],
    &[
        "flags/flag_catalogue.rs",
        "flags/flag_concern.rs",
        "flags/flag_program.rs",
        "flags/flag_set.rs",
    ],
];

impl House {
    fn root(&self) -> PathBuf {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(self.sources)
    }
}

/// The files of a crate by their path, as code: without comments and tests.
fn files(house: &House) -> BTreeMap<String, String> {
    let (mut found, mut open) = (BTreeMap::new(), vec![house.root()]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path
                .strip_prefix(house.root())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            if path.is_dir() {
                open.push(path);
            } else if !name.ends_with("_tests.rs") && name != "lib.rs" {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("\n#[cfg(test)]\n").next().unwrap().lines();
                let code: Vec<_> = code.filter(|line| !line.trim_start().starts_with("//")).collect();
                found.insert(name, code.join("\n"));
            }
        }
    }
    assert!(found.len() > house.files, "{}", found.len());
    found
}

/// What a file uses of other files of the crate: a room, and a name in it, which is empty where the room itself is named.
fn uses(code: &str) -> Vec<(String, String)> {
    let path = Regex::new(r"crate::([a-z_]+)(?:::(\{[^}]*\}|[A-Za-z0-9_]+))?").unwrap();
    let name = Regex::new(r"[A-Za-z0-9_]+").unwrap();
    let mut found = Vec::new();
    for captures in path.captures_iter(code) {
        let Some(names) = captures.get(2) else {
            found.push((captures[1].to_owned(), String::new()));
            continue;
        };
        let names = name
            .find_iter(names.as_str())
            .map(|name| name.as_str().to_owned());
        found.extend(names.map(|name| (captures[1].to_owned(), name)));
    }
    found
}

fn room(file: &str) -> &str {
    file.split_once('/')
        .map_or(file.trim_end_matches(".rs"), |(room, _)| room)
}

/// The file of the room that a deeper one is a part of: `tenant/scope/gate.rs` is of `tenant/scope.rs`.
fn whole(file: &str) -> String {
    match file.split('/').collect::<Vec<_>>()[..] {
        [room, file, _, ..] => format!("{room}/{file}.rs"),
        _ => file.to_owned(),
    }
}

/// The file of each name that a room shows, after its `mod.rs`; under the name `*` that of which it shows all.
fn shown(files: &BTreeMap<String, String>) -> BTreeMap<(String, String), String> {
    let reexport = Regex::new(r"pub use ([a-z_]+)::(\*|\{[^}]*\}|[A-Za-z0-9_]+);").unwrap();
    let name = Regex::new(r"[A-Za-z0-9_]+").unwrap();
    let mut shown = BTreeMap::new();
    for (file, code) in files.iter().filter(|(file, _)| file.ends_with("/mod.rs")) {
        for captures in reexport.captures_iter(code) {
            let names = match &captures[2] {
                "*" => vec!["*"],
                names => name.find_iter(names).map(|name| name.as_str()).collect(),
            };
            for name in names {
                let key = (room(file).to_owned(), name.to_owned());
                shown.insert(key, format!("{}/{}.rs", room(file), &captures[1]));
            }
        }
    }
    shown
}

/// Which files each file uses.
fn graph(house: &House) -> BTreeMap<String, BTreeSet<String>> {
    let files = files(house);
    let shown = shown(&files);
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, code) in files.iter().filter(|(file, _)| !file.ends_with("/mod.rs")) {
        let used = graph.entry(whole(file)).or_default();
        for (room, name) in uses(code) {
            let of_room = format!("{room}/{name}.rs");
            let all = shown.get(&(room.clone(), "*".to_owned())).cloned();
            let by_name = shown.get(&(room, name)).cloned();
            let by_file = || files.contains_key(&of_room).then_some(of_room);
            used.extend(by_name.or_else(by_file).or(all));
        }
        used.remove(&whole(file));
    }
    graph
}

fn reached(graph: &BTreeMap<String, BTreeSet<String>>, from: &str) -> BTreeSet<String> {
    let (mut found, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(next) = open.pop() {
        for used in graph.get(&next).into_iter().flatten() {
            if found.insert(used.clone()) {
                open.push(used.clone());
            }
        }
    }
    found
}

#[test]
fn rooms_use_only_those_that_they_may() {
    for house in &HOUSES {
        let names: Vec<&str> = house.rooms.iter().map(|(room, _)| *room).collect();
        for (place, (room, may_use)) in house.rooms.iter().enumerate() {
            for used in *may_use {
                assert!(names[..place].contains(used), "{room} comes before {used}");
            }
        }
        let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (file, code) in files(house) {
            let (_, may_use) = house
                .rooms
                .iter()
                .find(|(name, _)| *name == room(&file))
                .unwrap_or_else(|| panic!("{file} is in no room"));
            for (other, name) in uses(&code).into_iter().filter(|(other, _)| other != room(&file)) {
                assert!(may_use.contains(&&*other), "{file} uses {other}::{name}");
                used.entry(room(&file).to_owned()).or_default().insert(other);
            }
        }
        for (room, may_use) in house.rooms {
            let used = used.remove(*room).unwrap_or_default();
            let may_use: BTreeSet<String> = may_use.iter().map(|&room| room.to_owned()).collect();
            assert_eq!(used, may_use, "what {room} uses: take the rest out of the list");
        }
    }
}

/// The first ten lines of each room say what it may use.
#[test]
fn rooms_say_what_they_may_use() {
    for house in &HOUSES {
        let folders = house
            .rooms
            .iter()
            .map(|(room, may_use)| (house.root().join(room), may_use));
        for (folder, may_use) in folders.filter(|(folder, _)| folder.is_dir()) {
            let text = fs::read_to_string(folder.join("mod.rs")).unwrap();
            let said = match may_use {
                [] => "no other room".to_owned(),
                rooms => rooms
                    .iter()
                    .map(|room| format!("`{room}`"))
                    .collect::<Vec<_>>()
                    .join(", "),
            };
            let line = format!("//! May use: {said}.");
            let mut first = text.lines().take(10);
            assert!(first.any(|found| found == line), "{}: {line}", folder.display());
        }
    }
}

#[test]
fn files_that_need_each_other_become_fewer() {
    for house in &HOUSES {
        let graph = graph(house);
        let mut circles = BTreeSet::new();
        for file in graph.keys() {
            let reached_from = |other: &String| reached(&graph, other).contains(file);
            let circle: Vec<String> = reached(&graph, file).into_iter().filter(reached_from).collect();
            if !circle.is_empty() {
                circles.insert(circle);
            }
        }
        let known: BTreeSet<Vec<String>> = house
            .circles
            .iter()
            .map(|circle| circle.iter().map(|&file| file.to_owned()).collect())
            .collect();
        assert_eq!(circles, known, "{}", house.sources);
    }
}
