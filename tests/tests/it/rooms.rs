//! The rooms of the layers: which may use which, and that no two files need each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

use crate::source_files::rust_files;

/// A layer: a crate, or a part of one, whose folders are the rooms.
struct Layer {
    /// The folder of the rooms, from `crates`.
    folder: &'static str,
    /// The module of the crate that the layer is; none when it is the crate.
    module: Option<&'static str>,
    /// The rooms, each with those that it uses. A room uses only those before it, so there is no circle.
    rooms: &'static [(&'static str, &'static [&'static str])],
    /// Rooms that use one after them all the same. The list may only become shorter.
    upward: &'static [(&'static str, &'static str)],
}

const DOMAIN: Layer = Layer {
    folder: "domain/src",
    module: None,
    rooms: &[
        ("kernel", &[]),
        ("usage", &["kernel"]),
        ("plans", &["kernel", "usage"]),
        ("identity", &["kernel"]),
        ("tenant", &["kernel", "plans", "identity"]),
        ("events", &["kernel"]),
        ("notifications", &["kernel", "identity", "events"]),
        ("audit", &["kernel", "events"]),
        ("security", &["kernel", "audit"]),
        ("archive", &["kernel", "audit"]),
        ("work", &["kernel", "identity"]),
        ("customization", &["kernel", "plans", "identity", "tenant"]),
        ("flags", &["kernel", "tenant"]),
        (
            "operations",
            &[
                "kernel", "usage", "identity", "tenant", "events", "audit", "flags",
            ],
        ),
        ("billing", &["kernel", "usage", "identity", "operations"]),
        ("webhooks", &["kernel", "identity"]),
        (
            "store",
            &[
                "kernel",
                "usage",
                "identity",
                "tenant",
                "events",
                "notifications",
                "audit",
                "security",
                "archive",
                "work",
                "customization",
                "flags",
                "operations",
                "billing",
                "webhooks",
            ],
        ),
    ],
    upward: &[],
};

const TENANCY: Layer = Layer {
    folder: "tenancy/src",
    module: None,
    rooms: &[
        ("kernel", &[]),
        ("usage", &["kernel"]),
        ("plans", &["kernel"]),
        ("billing", &["kernel"]),
        ("audit", &["kernel"]),
        ("operations", &["kernel", "audit"]),
        ("customization", &["kernel", "audit"]),
        ("notifications", &["kernel", "operations", "customization"]),
        (
            "events",
            &["kernel", "operations", "customization", "notifications"],
        ),
        ("webhooks", &["kernel", "operations", "customization"]),
        ("archive", &["kernel", "audit", "operations", "customization"]),
        (
            "identity",
            &["kernel", "audit", "operations", "customization", "webhooks"],
        ),
        (
            "security",
            &["kernel", "audit", "operations", "customization", "identity"],
        ),
        ("admin", &["kernel", "audit", "operations", "identity"]),
        ("work", &["kernel"]),
        ("flags", &["kernel"]),
        (
            "tenant",
            &[
                "kernel",
                "audit",
                "operations",
                "customization",
                "notifications",
                "events",
                "webhooks",
                "archive",
                "identity",
                "security",
            ],
        ),
        (
            "handlers",
            &[
                "operations",
                "notifications",
                "events",
                "webhooks",
                "archive",
                "identity",
                "security",
                "tenant",
            ],
        ),
    ],
    upward: &[],
};

const BILLING: Layer = Layer {
    folder: "billing/src",
    module: None,
    rooms: &[
        ("kernel", &[]),
        ("usage", &["kernel"]),
        ("plans", &["kernel", "usage"]),
        ("billing", &["kernel", "usage", "plans"]),
        ("handlers", &["usage", "billing"]),
    ],
    upward: &[],
};

const PERSISTENCE: Layer = Layer {
    folder: "persistence/src",
    module: None,
    rooms: &[
        ("kernel", &[]),
        ("identity", &["kernel", "operations"]),
        ("plans", &["kernel"]),
        ("events", &["kernel"]),
        ("notifications", &["kernel"]),
        ("audit", &["kernel"]),
        ("security", &["kernel"]),
        ("archive", &["kernel"]),
        ("work", &["kernel"]),
        ("webhooks", &["kernel"]),
        ("customization", &["kernel"]),
        ("usage", &["kernel"]),
        ("tenant", &["kernel", "identity", "plans"]),
        ("operations", &["kernel", "identity", "events", "work", "tenant"]),
        ("flags", &["kernel", "operations"]),
        ("billing", &["kernel", "plans", "operations"]),
    ],
    // Keys that sign tokens are changed in a unit of work of operators.
    upward: &[("identity", "operations")],
};

const HTTP: Layer = Layer {
    folder: "http/src/v1",
    module: Some("v1"),
    rooms: &[
        ("kernel", &[]),
        ("work", &["kernel"]),
        ("usage", &["kernel"]),
        ("plans", &["kernel", "usage"]),
        ("tenant", &["kernel", "identity"]),
        ("identity", &["kernel", "tenant"]),
        ("customization", &["kernel", "work"]),
        ("flags", &["kernel"]),
        ("billing", &["kernel"]),
        ("audit", &["kernel"]),
        ("events", &[]),
        ("notifications", &[]),
        ("webhooks", &["kernel"]),
        ("security", &[]),
        ("archive", &["kernel"]),
        (
            "admin",
            &["kernel", "work", "tenant", "identity", "flags", "audit"],
        ),
    ],
    // The answer of a sign-up has the user, that of a login the tenant.
    upward: &[("tenant", "identity")],
};

const LAYERS: &[&Layer] = &[&DOMAIN, &TENANCY, &BILLING, &PERSISTENCE, &HTTP];

/// The code of a layer by file, and where the names are that its rooms and its root show.
struct Code {
    module: Option<&'static str>,
    files: BTreeMap<String, String>,
    shown: BTreeMap<(String, String), String>,
}

impl Layer {
    fn root(&self) -> PathBuf {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../crates")).join(self.folder)
    }

    fn code(&self) -> Code {
        let files = files(&self.root());
        let shown = shown(&files);
        Code {
            module: self.module,
            files,
            shown,
        }
    }
}

/// The files below a folder by their path in it, as code: without comments and tests.
fn files(root: &Path) -> BTreeMap<String, String> {
    let name = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    let code = |text: &str| {
        let code = text.split("\n#[cfg(test)]\n").next().unwrap().lines();
        let code: Vec<_> = code.filter(|line| !line.trim_start().starts_with("//")).collect();
        code.join("\n")
    };
    let files = rust_files([root.to_owned()]).into_iter();
    let files = files.map(|(path, text)| (name(&path), code(&text)));
    let found: BTreeMap<_, _> = files.filter(|(name, _)| !name.ends_with("_tests.rs")).collect();
    assert!(found.len() > 25, "{}: {}", root.display(), found.len());
    found
}

/// The room of a file; a file beside the rooms is one of its own.
fn room(file: &str) -> &str {
    file.split_once('/')
        .map_or(file.trim_end_matches(".rs"), |(room, _)| room)
}

/// The root of a layer shows names and puts rooms together; it is no room.
fn is_root(file: &str) -> bool {
    matches!(file, "lib.rs" | "mod.rs")
}

/// The file of the room that a deeper one is a part of: `tenant/scope/gate.rs` is of `tenant/scope.rs`.
fn whole(file: &str) -> String {
    match file.split('/').collect::<Vec<_>>()[..] {
        [room, file, _, ..] => format!("{room}/{file}.rs"),
        _ => file.to_owned(),
    }
}

/// The paths of a tree of names: `{a::b, c::{d, e}}` is `a::b`, `c::d` and `c::e`. Reads to where the tree ends.
fn paths(text: &str) -> Vec<Vec<String>> {
    fn tree<'a>(mut rest: &'a str, before: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
        let mut path = before.to_vec();
        loop {
            rest = rest.trim_start();
            if let Some(inner) = rest.strip_prefix('{') {
                rest = inner;
                loop {
                    rest = tree(rest, &path, found).trim_start();
                    match rest.strip_prefix(',') {
                        Some(next) => rest = next,
                        None => return rest.strip_prefix('}').unwrap_or(rest),
                    }
                }
            }
            let is_of_name = |c: char| c.is_alphanumeric() || c == '_';
            let end = rest.find(|c| !is_of_name(c)).unwrap_or(rest.len());
            if end > 0 {
                path.push(rest[..end].to_owned());
                rest = &rest[end..];
            }
            match rest.strip_prefix("::") {
                Some(next) if end > 0 => rest = next,
                _ => break,
            }
        }
        if path.len() > before.len() {
            found.push(path);
        }
        // The rest of `name as other`, and `*`.
        let end = rest.find([',', '}', ';']).unwrap_or(rest.len());
        &rest[end..]
    }
    let mut found = Vec::new();
    tree(text, &[], &mut found);
    found
}

/// The file of each name that a room shows after its `mod.rs`, and that the root shows: that has no room.
fn shown(files: &BTreeMap<String, String>) -> BTreeMap<(String, String), String> {
    let reexport = Regex::new(r"pub(?:\(crate\))? use ([a-z_]+::)").unwrap();
    let mut shown = BTreeMap::new();
    for (file, code) in files
        .iter()
        .filter(|(file, _)| file.ends_with("mod.rs") || is_root(file))
    {
        for captures in reexport.captures_iter(code) {
            for path in paths(&code[captures.get(1).unwrap().start()..]) {
                let Some((name, modules)) = path.split_last() else {
                    continue;
                };
                // A room may show what is in another: `pub use crate::kernel::context::Cx`.
                let elsewhere = modules.first().is_some_and(|first| first == "crate");
                let (room, target) = if elsewhere {
                    let room = if is_root(file) { "" } else { room(file) };
                    (room.to_owned(), modules[1..].join("/"))
                } else if is_root(file) {
                    (String::new(), modules.join("/"))
                } else {
                    (
                        room(file).to_owned(),
                        format!("{}/{}", room(file), modules.join("/")),
                    )
                };
                shown.insert((room, name.clone()), whole(&format!("{target}.rs")));
            }
        }
    }
    shown
}

impl Code {
    /// What a file uses of other files of the layer: the file, or the room where no file has the name.
    fn uses(&self, file: &str) -> BTreeSet<String> {
        let (begin, code) = (Regex::new(r"\bcrate::").unwrap(), &self.files[file]);
        let found = begin
            .find_iter(code)
            .flat_map(|found| paths(&code[found.end()..]));
        let of_layer = found.filter_map(|path| match (self.module, path.split_first()) {
            (Some(module), Some((first, rest))) => (first == module).then(|| rest.to_vec()),
            _ => Some(path),
        });
        of_layer.filter_map(|path| self.target(&path)).collect()
    }

    fn target(&self, path: &[String]) -> Option<String> {
        let none = String::new();
        let (first, second) = (path.first()?, path.get(1).unwrap_or(&none));
        let known = |room: &str, name: &str| self.shown.get(&(room.to_owned(), name.to_owned()));
        let candidates = [
            format!("{first}/{second}.rs"),
            format!("{first}/{second}/mod.rs"),
            format!("{first}.rs"),
        ];
        let of_path = || candidates.iter().find(|file| self.files.contains_key(*file));
        let is_room = || self.files.contains_key(&format!("{first}/mod.rs"));
        known(first, second)
            .cloned()
            .or_else(|| of_path().map(|file| whole(file)))
            .or_else(|| is_room().then(|| format!("{first}/mod.rs")))
            .or_else(|| known("", first).and_then(|file| self.through(file)))
    }

    /// A name that the root shows of a room may be one that the room shows of a file.
    fn through(&self, file: &str) -> Option<String> {
        let is_file =
            self.files.contains_key(file) || self.files.contains_key(&file.replace(".rs", "/mod.rs"));
        is_file.then(|| file.to_owned())
    }

    /// Which files each file uses.
    fn graph(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let is_module = |file: &str| file.ends_with("/mod.rs") && file.matches('/').count() == 1;
        for file in self
            .files
            .keys()
            .filter(|file| !is_root(file) && !is_module(file))
        {
            let uses = self.uses(file).into_iter().filter(|used| !is_module(used));
            let used = graph.entry(whole(file)).or_default();
            used.extend(uses);
            used.remove(&whole(file));
        }
        graph
    }

    /// Which rooms each room uses.
    fn rooms(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for file in self.files.keys().filter(|file| !is_root(file)) {
            let uses = self.uses(file).into_iter().map(|used| room(&used).to_owned());
            let used = rooms.entry(room(file).to_owned()).or_default();
            used.extend(uses.filter(|used| used != room(file)));
        }
        rooms
    }
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

fn circles(graph: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<Vec<String>> {
    let all: BTreeMap<&String, BTreeSet<String>> =
        graph.keys().map(|file| (file, reached(graph, file))).collect();
    let leads = |from: &String, to: &String| all.get(from).is_some_and(|reached| reached.contains(to));
    let circle = |file: &String| -> Vec<String> {
        let others = all[file].iter().filter(|other| leads(other, file));
        others.cloned().collect()
    };
    let circles = graph.keys().map(circle);
    circles.filter(|circle| !circle.is_empty()).collect()
}

/// Where this fails for a room that uses less than its list says, take the rest out of the list. Where it uses more, find
/// another way, or, when the other room is before it, add that.
#[test]
fn rooms_use_only_those_that_they_may() {
    for layer in LAYERS {
        let names: Vec<&str> = layer.rooms.iter().map(|(room, _)| *room).collect();
        let mut upward = Vec::new();
        for (place, (room, may_use)) in layer.rooms.iter().enumerate() {
            let after = may_use.iter().filter(|used| !names[..place].contains(used));
            upward.extend(after.map(|used| (*room, *used)));
        }
        let used: Vec<(String, Vec<String>)> = layer
            .code()
            .rooms()
            .into_iter()
            .map(|(room, used)| {
                let place = |room: &String| names.iter().position(|name| name == room);
                let mut used: Vec<_> = used.into_iter().collect();
                used.sort_by_key(place);
                (room, used)
            })
            .collect();
        let mut may_use: Vec<(String, Vec<String>)> = layer
            .rooms
            .iter()
            .map(|(room, used)| {
                (
                    (*room).to_owned(),
                    used.iter().map(|&room| room.to_owned()).collect(),
                )
            })
            .collect();
        may_use.sort();
        assert_eq!(used, may_use, "{}: what is used, and what may be", layer.folder);
        assert_eq!(
            upward, layer.upward,
            "{}: rooms that use one after them",
            layer.folder
        );
    }
}

/// The first ten lines of each room of the domain say what it may use.
#[test]
fn rooms_say_what_they_may_use() {
    for (room, may_use) in DOMAIN.rooms.iter().filter(|(room, _)| *room != "store") {
        let text = fs::read_to_string(DOMAIN.root().join(room).join("mod.rs")).unwrap();
        let said = match may_use {
            [] => "no other room".to_owned(),
            rooms => rooms
                .iter()
                .map(|room| format!("`{room}`"))
                .collect::<Vec<_>>()
                .join(", "),
        };
        let line = format!("//! May use: {said}.");
        assert!(text.lines().take(10).any(|found| found == line), "{room}: {line}");
    }
}

#[test]
fn no_files_need_each_other() {
    for layer in LAYERS {
        assert_eq!(
            circles(&layer.code().graph()),
            BTreeSet::new(),
            "{}",
            layer.folder
        );
    }
}

/// A path is found in the forms in which code has it.
#[test]
fn names_are_found_in_their_files() {
    let of = |text: &str| paths(text).iter().map(|path| path.join("::")).collect::<Vec<_>>();
    assert_eq!(of("a::B;"), ["a::B"]);
    assert_eq!(of("{A, b::{C, d::E}, f::g};"), ["A", "b::C", "b::d::E", "f::g"]);
    assert_eq!(of("{a as b, c::*, d};"), ["a", "c", "d"]);
    assert_eq!(of("a::{\n    B, C,\n};"), ["a::B", "a::C"]);
    assert_eq!(of("a::b::c(1)"), ["a::b::c"]);

    let text = |text: &str| text.to_owned();
    let files = BTreeMap::from([
        (
            text("lib.rs"),
            text("pub use work::task::Task;\npub use kernel::{Id, time::Time};"),
        ),
        (text("kernel/mod.rs"), text("mod id;\npub use id::{Id, Key};")),
        (text("kernel/id.rs"), text("")),
        (text("kernel/time.rs"), text("")),
        (text("work/mod.rs"), text("pub mod task;")),
        (text("work/task.rs"), text("use crate::kernel::{Key, time};")),
        (text("work/deep/mod.rs"), text("")),
        (text("work/deep/part.rs"), text("fn a() -> crate::Task {}")),
    ]);
    let code = Code {
        module: None,
        shown: shown(&files),
        files,
    };
    assert_eq!(
        code.uses("work/task.rs"),
        ["kernel/id.rs", "kernel/time.rs"].map(text).into()
    );
    assert_eq!(code.uses("work/deep/part.rs"), ["work/task.rs"].map(text).into());
    assert_eq!(code.graph()["work/deep.rs"], ["work/task.rs"].map(text).into());
    let both = BTreeMap::from([
        (text("a"), BTreeSet::from([text("b")])),
        (text("b"), BTreeSet::from([text("a"), text("c")])),
    ]);
    assert_eq!(circles(&both), BTreeSet::from([vec![text("a"), text("b")]]));
}
