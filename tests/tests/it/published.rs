//! What is published is true: every error code, plan feature and setting is tied to the code that raises or reads it.
//!
//! The lists of exceptions may only shrink. A test fails when an exception is not one any more, so that it has to go, and
//! a new one has to be defended in a review.

use std::{collections::BTreeMap, fs, path::Path};

use tenantry_domain::{ErrorCode, SettingRegistry};
use tenantry_tenancy::product_settings;

/// Error codes that nothing raises.
const CODES_NOT_RAISED: &[&str] = &[];

/// Features of the plans that come with the product that nothing asks for.
const FEATURES_NOT_READ: &[&str] = &[];

/// Settings of tenants that nothing acts on yet. Their descriptions say so.
const SETTINGS_NOT_IN_EFFECT: &[&str] = &[
    "integrations.smtp_password",
    "notifications.digest_hour",
    "notifications.email_digest",
    "retention.audit_days",
    "webhook.default_url",
];

/// Settings of tenants that clients act on. Their descriptions say what clients do.
const SETTINGS_OF_CLIENTS: &[&str] = &[
    "appearance.highlight_color",
    "appearance.navigation",
    "appearance.theme",
    "security.allowed_email_domains",
    "security.session_idle_minutes",
    "support.url",
    "tasks.reference_prefix",
];

/// Settings of the server that nothing reads.
const CONFIGURATION_NOT_READ: &[&str] = &[];

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap()
}

/// The code of the product by path, without its tests.
fn sources() -> BTreeMap<String, String> {
    let (mut found, mut open) = (BTreeMap::new(), vec![Path::new(ROOT).join("crates")]);
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                if !["tests", "benches", "target"].contains(&name.as_str()) {
                    open.push(path);
                }
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") && name != "testing.rs" {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("\n#[cfg(test)]\n").next().unwrap().to_owned();
                found.insert(path.to_str().unwrap().to_owned(), code);
            }
        }
    }
    found
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
    let is_raised =
        |code: &ErrorCode| named_outside(&sources, &["domain/src/code.rs"], &format!("ErrorCode::{code:?}"));
    let unread = ErrorCode::ALL.iter().filter(|code| !is_raised(code));
    assert_exceptions(unread.map(|code| code.as_str()), CODES_NOT_RAISED);
}

#[test]
fn every_feature_of_a_plan_is_asked_for() {
    let (sources, plans) = (sources(), read("config/plans.toml"));
    let entitlement = read("crates/tenancy/src/entitlement.rs");
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
        let files = ["tenancy/src/entitlement.rs", "http/src/feature.rs"];
        name.is_some_and(|name| named_outside(&sources, &files, &format!("Feature::{name}")))
    };
    let unread = features.into_iter().filter(|feature| !is_asked_for(feature));
    assert_exceptions(unread, FEATURES_NOT_READ);
}

#[test]
fn every_setting_of_a_tenant_has_somebody_who_acts_on_it() {
    let (sources, definitions) = (sources(), read("crates/tenancy/src/product_settings.rs"));
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

/// A name that several groups of settings have counts where it is read of its group.
#[test]
fn every_setting_of_the_server_is_read() {
    let sources = sources();
    let in_server: Vec<_> = sources
        .iter()
        .filter(|(path, _)| path.contains("/crates/server/"))
        .collect();
    let settings = read("crates/server/src/settings.rs");
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
        let shared = fields.iter().filter(|(_, other)| other == field).count() > 1;
        let names_of = if shared {
            vec![
                format!("{group}.{field}"),
                format!("self.{field}"),
                format!("settings.{field}"),
            ]
        } else {
            vec![format!(".{field}")]
        };
        in_server
            .iter()
            .any(|(_, code)| names_of.iter().any(|name| names(code, name)))
    };
    let unread = fields.iter().filter(|field| !is_read(field));
    assert_exceptions(unread.map(|(_, field)| *field), CONFIGURATION_NOT_READ);
}
