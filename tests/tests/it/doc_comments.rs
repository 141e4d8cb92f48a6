//! Doc comments say more than the name of what they stand above.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use regex::Regex;

use crate::source_files::{ROOT, of_each_crate, rust_files};

/// Rooms with doc comments that only repeat a name, and how many each has. The numbers may only become smaller.
const LEFT: &[(&str, usize)] = &[];

/// Words that say nothing by themselves.
const EMPTY: &[&str] = &[
    "a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "has", "have", "in", "is", "it", "its",
    "of", "on", "one", "or", "s", "that", "the", "their", "this", "to", "what", "which", "who", "with",
];

/// The sources of the product, by their path in the repository.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(ROOT);
    let folders = of_each_crate("src")
        .into_iter()
        .chain([root.join("migration/src")]);
    let name = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    let files = rust_files(folders).into_iter();
    let found: BTreeMap<String, String> = files.map(|(path, text)| (name(&path), text)).collect();
    assert!(found.len() > 300, "{}", found.len());
    found
}

/// The words of a text or a name, in lower case and in the singular.
fn words(text: &str) -> Vec<String> {
    let word = Regex::new("[A-Z]?[a-z0-9]+|[A-Z]+").unwrap();
    let singular = |word: &str| match word.strip_suffix("ies") {
        Some(stem) if stem.len() > 1 => format!("{stem}y"),
        _ if word.len() > 3 && !word.ends_with("ss") => word.strip_suffix('s').unwrap_or(word).to_owned(),
        _ => word.to_owned(),
    };
    word.find_iter(text)
        .map(|word| singular(&word.as_str().to_lowercase()))
        .collect()
}

fn says_more(comment: &str, name: &str) -> bool {
    // In a text `API` is one word, in a name `ApiKey` are two.
    let name: BTreeSet<String> = words(name).into_iter().collect();
    let of_text = words(&comment.to_lowercase()).into_iter();
    of_text
        .filter(|word| !EMPTY.contains(&word.as_str()))
        .any(|word| !name.contains(&word))
}

/// The doc comments of a source, each with its line and the name of the item below it.
fn documented(source: &str) -> Vec<(usize, String, String)> {
    let item = Regex::new(concat!(
        r"^(?:pub(?:\([^)]*\))? )?(?:(?:default|const|async|unsafe) )*",
        r"(?:(?:fn|struct|enum|trait|type|const|static|mod|union|macro_rules!) )?(?:r#)?([A-Za-z_][A-Za-z0-9_]*)"
    ))
    .unwrap();
    let (mut found, mut comment, mut in_attribute) = (Vec::new(), Vec::new(), 0_usize);
    for (line, text) in source.lines().map(str::trim).enumerate() {
        if let Some(said) = text.strip_prefix("///") {
            comment.push(said.trim().to_owned());
        } else if !comment.is_empty() && (text.starts_with("#[") || in_attribute > 0) {
            in_attribute =
                (in_attribute + text.matches('[').count()).saturating_sub(text.matches(']').count());
        } else if let Some(captures) = item.captures(text).filter(|_| !comment.is_empty()) {
            found.push((line + 1, captures[1].to_owned(), comment.join(" ")));
            comment.clear();
        } else {
            comment.clear();
        }
    }
    found
}

/// The room that a file counts for, or its crate.
fn room(file: &str) -> &str {
    let mut parts = file.split('/').filter(|part| *part != "crates");
    let of_crate = parts.next().unwrap_or(file);
    let known = |part: &&str| LEFT.iter().any(|(room, _)| room == part);
    file.rsplit('/').find(known).unwrap_or(of_crate)
}

#[test]
fn doc_comments_say_more_than_the_name() {
    let mut poor: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut read = 0;
    for (file, source) in sources() {
        for (line, name, comment) in documented(&source) {
            read += 1;
            if !says_more(&comment, &name) {
                let found = format!("{file}:{line}: `{name}`: {comment}");
                poor.entry(room(&file).to_owned()).or_default().push(found);
            }
        }
    }
    assert!(read > 7_000, "{read}");
    let found: BTreeMap<&str, usize> = poor
        .iter()
        .map(|(room, poor)| (room.as_str(), poor.len()))
        .collect();
    let known: BTreeMap<&str, usize> = LEFT.iter().copied().collect();
    assert_eq!(
        found,
        known,
        "say what the item is for, in which unit, which values; where there are fewer than known, lower the number:\n{}",
        poor.values().flatten().cloned().collect::<Vec<_>>().join("\n")
    );
}

#[test]
fn comments_that_repeat_the_name_are_found() {
    for (name, comment) in [
        ("user_id", "The id of the user."),
        ("ApiKey", "An API key."),
        ("Properties", "A property."),
        ("id", "Its id."),
    ] {
        assert!(!says_more(comment, name), "{name}: {comment}");
    }
    assert!(says_more("The id of the user who asked.", "user_id"));
    let source = "/// A task.\n#[derive(\n    Debug\n)]\npub struct Task {\n    /// Its id.\n    pub id: Id,\n}\n/// Why\n\nfn a() {}\n";
    let found = documented(source);
    let found: Vec<_> = found
        .iter()
        .map(|(line, name, said)| (*line, name.as_str(), said.as_str()))
        .collect();
    assert_eq!(found, [(5, "Task", "A task."), (7, "id", "Its id.")]);
}
