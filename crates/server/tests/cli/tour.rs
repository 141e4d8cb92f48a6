//! The README's tour, taken as a reader takes it: its commands pasted into a shell in their order.

use super::*;

/// A fenced block of the README.
struct Block {
    language: String,
    text: String,
}

/// A command block and the answer that the README shows behind it, if any.
struct Step {
    commands: String,
    answer: Option<String>,
}

fn readme() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap()
}

/// The text below a heading of the second level.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("\n## {heading}\n")).unwrap();
    rest.split_once("\n## ").map_or(rest, |(section, _)| section)
}

fn blocks(section: &str) -> Vec<Block> {
    let (mut blocks, mut open): (Vec<Block>, Option<Block>) = (Vec::new(), None);
    for line in section.lines() {
        match (line.strip_prefix("```"), open.as_mut()) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(language), None) => {
                let language = language.to_owned();
                open = Some(Block {
                    language,
                    text: String::new(),
                });
            }
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

fn steps(blocks: Vec<Block>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for block in blocks {
        match (block.language.as_str(), steps.last_mut()) {
            ("sh", _) => steps.push(Step {
                commands: block.text,
                answer: None,
            }),
            ("json" | "", Some(step)) if step.answer.is_none() => step.answer = Some(block.text),
            _ => {}
        }
    }
    steps
}

/// Whether a text is what the README shows, where `…` stands for anything. White space is for readers only.
fn shows(shown: &str, text: &str) -> bool {
    let squeezed = |text: &str| -> String { text.chars().filter(|c| !c.is_whitespace()).collect() };
    let (shown, text) = (squeezed(shown), squeezed(text));
    let mut parts = shown.split('…');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let parts: Vec<_> = parts.collect();
    let Some((last, between)) = parts.split_last() else {
        return rest.is_empty();
    };
    for part in between {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// What each step prints, with all of them in one shell as in one terminal.
fn take(steps: &[Step], dev: &Dev, export: &str) -> Vec<String> {
    let port = format!(":{}", dev.address.rsplit(':').next().unwrap());
    let mut script = format!("{export}\n");
    for step in steps {
        script.push_str(&step.commands.replace(":8080", &port));
        script.push_str("printf '\\n=====\\n'\n");
    }
    let output = Command::new("bash")
        .args(["-c", &script])
        .env_remove("TENANTRY_PROFILE")
        .env_remove("DATABASE_URL")
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut answers: Vec<_> = text.split("\n=====\n").map(str::to_owned).collect();
    assert_eq!(
        answers.pop().as_deref(),
        Some(""),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    answers
}

#[test]
fn tour_gives_the_answers_shown_when_taken_twice() {
    let page = readme();
    let tour = ["A tour", "Operators"].map(|heading| steps(blocks(section(&page, heading))));
    let steps: Vec<_> = tour.into_iter().flatten().collect();
    assert!(steps.iter().filter(|step| step.answer.is_some()).count() > 8);
    let folder = Folder::new("tour");
    let mut dev = Dev::start(&folder.0);
    let export = dev.line_for_another_terminal();
    for time in ["the first time", "the second time"] {
        for (step, answer) in steps.iter().zip(take(&steps, &dev, &export)) {
            let shown = step.answer.as_deref().unwrap_or("…");
            assert!(
                shows(shown, &answer) && !answer.is_empty(),
                "{time}:\n{}\nREADME:\n{shown}\nanswer:\n{answer}",
                step.commands
            );
        }
    }
    assert_eq!(dev.stop(), Some(0));
}

/// A prompt in front of a command makes it fail when it is pasted, and so does a variable that nobody has set.
#[test]
fn command_blocks_of_documentation_can_be_pasted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = vec![
        root.join("README.md"),
        root.join("CONTRIBUTING.md"),
        root.join("ARCHITECTURE.md"),
    ];
    pages.extend(
        std::fs::read_dir(root.join("docs"))
            .unwrap()
            .map(|entry| entry.unwrap().path()),
    );
    for page in pages
        .iter()
        .filter(|page| page.extension().is_some_and(|end| end == "md"))
    {
        let text = std::fs::read_to_string(page).unwrap();
        for block in blocks(&text).iter().filter(|block| block.language == "sh") {
            for line in block.text.lines() {
                assert!(!line.starts_with("$ "), "{}: {line}", page.display());
            }
            for variable in ["A", "TOKEN", "OPERATOR"] {
                let uses = [format!("${variable}/"), format!("${variable}\"")];
                let explained = ["=", "`", " is "].map(|behind| format!("{variable}{behind}"));
                let is_explained = explained.iter().any(|words| text.contains(words));
                assert!(
                    is_explained || !uses.iter().any(|used| block.text.contains(used)),
                    "{}: nothing says what ${variable} is",
                    page.display()
                );
            }
        }
    }
}
