//! What is published is true: every error code, plan feature and setting is tied to the code that raises or reads it.
//!
//! The lists of exceptions may only shrink. A test fails when an exception is not one any more, so that it has to go, and
//! a new one has to be defended in a review.

use std::{collections::BTreeMap, ffi::OsStr, fs, path::Path};

use tenantry_domain::customization::SettingRegistry;
use tenantry_domain::kernel::ErrorCode;
use tenantry_tenancy::customization::product_settings;

use crate::source_files::{ROOT, rust_files};

/// Error codes that nothing raises.
const CODES_NOT_RAISED: &[&str] = &[];

/// Features of the plans that come with the product that nothing asks for.
const FEATURES_NOT_READ: &[&str] = &[];

/// Settings of tenants that nothing acts on yet. Their descriptions say so.
const SETTINGS_NOT_IN_EFFECT: &[&str] = &["integrations.smtp_password", "webhook.default_url"];

/// Settings of tenants that clients act on. Their descriptions say what clients do.
const SETTINGS_OF_CLIENTS: &[&str] = &[
    "appearance.highlight_color",
    "appearance.navigation",
    "appearance.theme",
    "support.url",
    "tasks.reference_prefix",
];

/// Settings of the server that nothing reads.
const CONFIGURATION_NOT_READ: &[&str] = &[];

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

/// The code of the product by path, without its tests.
fn sources() -> BTreeMap<String, String> {
    let is_code = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let of_tests = |part: &OsStr| ["tests", "benches", "target"].map(OsStr::new).contains(&part);
        let parts = path.strip_prefix(ROOT).unwrap().iter();
        !parts.into_iter().any(of_tests) && !name.ends_with("tests.rs") && name != "testing.rs"
    };
    let files = rust_files([Path::new(ROOT).join("crates")]).into_iter();
    let code = |text: &str| text.split("\n#[cfg(test)]\n").next().unwrap().to_owned();
    files
        .filter(|(path, _)| is_code(path))
        .map(|(path, text)| (path.to_str().unwrap().to_owned(), code(&text)))
        .collect()
}

/// Whether the code has a name, and not only as a part of a longer one.
fn names(code: &str, name: &str) -> bool {
    let is_inner = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        !(after.is_some_and(is_inner) || before.is_some_and(is_inner) && name.starts_with(is_inner))
    })
}

/// The code outside of some files has a name.
fn named_outside(sources: &BTreeMap<String, String>, files: &[&str], name: &str) -> bool {
    let mut outside = sources
        .iter()
        .filter(|(path, _)| !files.iter().any(|file| path.ends_with(file)));
    outside.any(|(_, code)| names(code, name))
}

/// Whether the code makes a value of this name, and not only compares with it or matches it.
fn makes(code: &str, name: &str) -> bool {
    let code = without_matches(code);
    let is_inner = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| {
        let (before, after) = (code[..at].trim_end(), &code[at + name.len()..]);
        let pattern_end = after.trim_start_matches([')', ',']).trim_start();
        let is_pattern = pattern_end.starts_with("=>") || after.trim_start().starts_with(['|']);
        let is_guarded = after.trim_start().starts_with("if ");
        let is_compared = before.ends_with("==") || before.ends_with("!=");
        !(after.starts_with(is_inner) || is_pattern || is_guarded || is_compared)
    })
}

/// The code without its `matches!(...)`.
fn without_matches(code: &str) -> String {
    let mut parts = code.split("matches!(");
    let mut kept = parts.next().unwrap().to_owned();
    for part in parts {
        let mut depth = 1;
        let end = part.find(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth == 0
        });
        kept.push_str(&part[end.unwrap_or_default()..]);
    }
    kept
}

/// The code of the server's settings without their definitions, their defaults and what checks them; what is left in the
/// implementation of a group is below its name.
fn readers_of_settings(text: &str) -> BTreeMap<String, String> {
    let (mut readers, mut group) = (BTreeMap::<String, String>::new(), String::new());
    let mut until = None;
    for line in text.lines() {
        if until.is_some() {
            until = until.filter(|end| line != *end);
            continue;
        }
        if let Some(name) = line.strip_prefix("impl ") {
            group = name.trim_end_matches([' ', '{']).to_lowercase();
        }
        let method = line.trim_start().trim_start_matches("pub ");
        let method = method.trim_start_matches("pub(super) ");
        let checks = method.starts_with("fn check") || method.starts_with("fn validate");
        until = if line.starts_with("pub struct ") || line.starts_with("impl Default for ") {
            Some("}")
        } else if checks {
            Some(if line.starts_with(' ') { "    }" } else { "}" })
        } else {
            readers
                .entry(group.clone())
                .or_default()
                .push_str(&format!("{line}\n"));
            None
        };
    }
    readers
}

/// The code with each chain of calls on one line.
fn chained(code: &str) -> String {
    let lines = code.lines().map(str::trim_start);
    let mut chained = String::new();
    for line in lines {
        if !line.starts_with('.') {
            chained.push('\n');
        }
        chained.push_str(line);
    }
    chained
}

/// What nothing reads is what the list of exceptions says.
#[track_caller]
fn assert_exceptions<'a>(unread: impl Iterator<Item = &'a str>, exceptions: &[&str]) {
    let mut unread: Vec<_> = unread.collect();
    unread.sort_unstable();
    assert_eq!(unread, exceptions);
}

#[test]
fn every_error_code_is_raised() {
    let sources = sources();
    let is_raised = |code: &ErrorCode| {
        let name = format!("ErrorCode::{code:?}");
        let mut others = sources
            .iter()
            .filter(|(path, _)| !path.ends_with("domain/src/kernel/code.rs"));
        others.any(|(_, code)| makes(code, &name))
    };
    let unread = ErrorCode::ALL.iter().filter(|code| !is_raised(code));
    assert_exceptions(unread.map(|code| code.as_str()), CODES_NOT_RAISED);
}

#[test]
fn every_feature_of_a_plan_is_asked_for() {
    let (sources, plans) = (sources(), read("config/plans.toml"));
    let entitlement = read("crates/tenancy/src/kernel/context/entitlements.rs");
    let lists = plans.lines().filter_map(|line| line.strip_prefix("features = "));
    let mut features: Vec<_> = lists
        .flat_map(|list| list.split('"').skip(1).step_by(2))
        .collect();
    features.sort_unstable();
    features.dedup();
    assert!(!features.is_empty());
    let is_asked_for = |feature: &str| {
        let end = format!(": Self = Self(\"{feature}\");");
        let definition = entitlement
            .lines()
            .find_map(|line| line.trim().strip_suffix(&end));
        let name = definition.and_then(|line| line.strip_prefix("pub const "));
        let files = [
            "tenancy/src/kernel/context/entitlements.rs",
            "http/src/extract/feature.rs",
        ];
        name.is_some_and(|name| named_outside(&sources, &files, &format!("Feature::{name}")))
    };
    let unread = features.into_iter().filter(|feature| !is_asked_for(feature));
    assert_exceptions(unread, FEATURES_NOT_READ);
}

#[test]
fn every_setting_of_a_tenant_has_somebody_who_acts_on_it() {
    let (sources, definitions) = (
        sources(),
        read("crates/tenancy/src/customization/product_settings.rs"),
    );
    let registry = SettingRegistry::new(product_settings::definitions()).unwrap();
    let is_read = |key: &str| {
        let end = format!("Setting::new(\"{key}\");");
        let definition = definitions.lines().find(|line| line.ends_with(&end));
        let name = definition.and_then(|line| line.strip_prefix("pub const ")?.split(':').next());
        name.is_some_and(|name| named_outside(&sources, &["product_settings.rs"], name))
    };
    let unread: Vec<_> = registry.iter().filter(|one| !is_read(one.key)).collect();
    for setting in &unread {
        let says_so = setting.description.starts_with("Not yet in effect");
        assert_eq!(
            says_so,
            SETTINGS_NOT_IN_EFFECT.contains(&setting.key),
            "{}",
            setting.key
        );
        let names_clients = setting.description.contains("clients");
        assert_eq!(
            names_clients,
            SETTINGS_OF_CLIENTS.contains(&setting.key),
            "{}",
            setting.key
        );
    }
    let mut exceptions = [SETTINGS_NOT_IN_EFFECT, SETTINGS_OF_CLIENTS].concat();
    exceptions.sort_unstable();
    assert_exceptions(unread.iter().map(|setting| setting.key), &exceptions);
}

#[test]
fn a_value_that_is_only_matched_is_not_made() {
    let name = "ErrorCode::Gone";
    for made in [
        "Self::new(ErrorCode::Gone)",
        "let code = ErrorCode::Gone;",
        ".map_err(|_| ErrorCode::Gone)",
        "Denied::Gone => ErrorCode::Gone,",
        "is_gone || matches!(code, ErrorCode::Lost) || raise(ErrorCode::Gone)",
        "match code { ErrorCode::Gone => ErrorCode::Gone }",
    ] {
        assert!(makes(made, name), "{made}");
    }
    for matched in [
        "match code { ErrorCode::Gone => 1, _ => 2 }",
        "match code { ErrorCode::Gone | ErrorCode::Lost => 1 }",
        "match code { ErrorCode::Lost\n    | ErrorCode::Gone => 1 }",
        "match code { ErrorCode::Gone if late => 1 }",
        "match code { Some(ErrorCode::Gone) => 1 }",
        "matches!(code.of(), ErrorCode::Lost | ErrorCode::Gone)",
        "code == ErrorCode::Gone",
        "ErrorCode::GoneForGood",
    ] {
        assert!(!makes(matched, name), "{matched}");
    }
}

/// A setting that is only defined, given a default and checked is not read.
#[test]
fn a_setting_that_is_only_checked_is_not_read() {
    let text = "pub struct Mail {\n    pub from: String,\n}\n\nimpl Default for Mail {\n    self.from\n}\n\n\
                impl Mail {\n    pub fn check(&self) {\n        self.from\n    }\n\n    pub(super) fn check_more(&self) {\n        self.from\n    }\n\n\
                pub fn sender(&self) {\n        self.to\n    }\n}\n";
    let readers = readers_of_settings(text);
    assert!(!names(&readers["mail"], "self.from") && names(&readers["mail"], "self.to"));
    assert!(names(
        &chained("settings\n    .jobs\n    .enabled"),
        "jobs.enabled"
    ));
}

/// A name that several groups of settings have counts where it is read of its group.
#[test]
fn every_setting_of_the_server_is_read() {
    let sources = sources()
        .into_iter()
        .filter(|(path, _)| path.contains("/crates/tenantry/"));
    let (sections, sources): (BTreeMap<_, _>, BTreeMap<_, _>) =
        sources.partition(|(path, _)| path.contains("/tenantry/src/config/"));
    let settings = sections.into_values().collect::<Vec<_>>().join("\n\n");
    let readers = readers_of_settings(&settings);
    let sources: BTreeMap<_, _> = sources
        .into_iter()
        .map(|(path, code)| (path, chained(&code)))
        .collect();
    let (mut group, mut fields) = (String::new(), Vec::new());
    for line in settings.lines() {
        if let Some(name) = line.strip_prefix("pub struct ") {
            group = name.trim_end_matches([' ', '{']).to_lowercase();
        } else if let Some((field, _)) = line
            .strip_prefix("    pub ")
            .and_then(|line| line.split_once(": "))
            .filter(|(field, _)| !field.contains(' '))
        {
            fields.push((group.clone(), field));
        }
    }
    assert!(fields.len() > 100, "{}", fields.len());
    let is_read = |(group, field): &(String, &str)| {
        let of_group = format!("{group}.{field}");
        let is_own = readers
            .get(group)
            .is_some_and(|code| names(code, &format!("self.{field}")));
        let is_shared = fields.iter().filter(|(_, other)| other == field).count() > 1;
        is_own
            || readers.values().any(|code| names(code, &of_group))
            || sources.iter().any(|(path, code)| {
                let is_its_file = path.ends_with(&format!("/{group}.rs"));
                names(code, &of_group)
                    || is_its_file && names(code, &format!("config.{field}"))
                    || !is_shared && names(code, &format!(".{field}"))
            })
    };
    let unread = fields.iter().filter(|field| !is_read(field));
    assert_exceptions(unread.map(|(_, field)| *field), CONFIGURATION_NOT_READ);
}

/// The evidence in docs/security.md is tests that exist: `module::test` of this crate, `cli::test` or `cli::module::test` of
/// the program's tests, `crate::tests::module::test` of a crate's integration tests, and unit tests by crate and path.
#[test]
fn every_test_that_is_named_as_evidence_exists() {
    let page = read("docs/security.md");
    let is_of_path = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == ':';
    let quoted = page.split('`').skip(1).step_by(2);
    let paths = quoted.filter(|text| text.chars().all(is_of_path));
    let tests: Vec<_> = paths.filter_map(|path| path.rsplit_once("::")).collect();
    assert!(tests.len() > 50, "{}", tests.len());
    for (module, test) in tests {
        let path = module.replace("::", "/");
        let file = match path.split_once('/') {
            Some(("cli", rest)) => format!("crates/server/tests/cli/{rest}.rs"),
            Some((folder, rest)) => match rest.strip_prefix("tests/") {
                Some(rest) => format!("crates/{folder}/tests/{rest}.rs"),
                None => format!("crates/{folder}/src/{rest}.rs"),
            },
            None if path == "cli" => "crates/server/tests/cli.rs".to_owned(),
            None => format!("tests/tests/it/{path}.rs"),
        };
        assert!(read(file).contains(&format!("fn {test}(")), "{module}::{test}");
    }
}
