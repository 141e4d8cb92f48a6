//! The README's tour and the pages below `docs`, taken as a reader takes them: their commands pasted into a shell in their order.

use super::*;

/// The pages that are walked beside one demo. Their blocks of the language `bash` are not: they start another server.
const PAGES: [&str; 16] = [
    // Its archive is of the demo as it begins, and the tenant that is imported from it too.
    "archives",
    "privacy",
    "sessions",
    "identity",
    "invitations",
    "mfa",
    "passkeys",
    "api-keys",
    "roles",
    "lifecycle",
    "audit",
    "operators",
    "security-policy",
    "support-access",
    "operations",
    // Its wrong passwords take from the rate of this address.
    "alerts",
];

/// A fenced block of a page.
struct Block {
    language: String,
    text: String,
}

/// A command block and the answer that the page shows behind it, if any.
struct Step {
    commands: String,
    answer: Option<String>,
}

/// What a step printed, and how its last command ended.
struct Answer {
    text: String,
    succeeded: bool,
}

impl Step {
    /// What is wrong with an answer: it differs from the one shown, or nothing is shown and the step failed.
    fn complaint(&self, answer: &Answer) -> Option<String> {
        let is_right = match &self.answer {
            Some(shown) => shows(shown, &answer.text),
            None => !answer.text.contains("\"/problems/"),
        };
        let Self {
            commands,
            answer: shown,
        } = self;
        (!is_right || !answer.succeeded)
            .then(|| format!("{commands}\npage:\n{shown:?}\nanswer:\n{}\n", answer.text))
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
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

/// Whether a text is what the page shows, where `…` stands for anything. White space is for readers only.
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

/// What each step prints, with all of them in one shell as in one terminal, in this folder.
fn take(steps: &[Step], dev: &Dev, preparation: &str, folder: &Path) -> Vec<Answer> {
    let port = format!(":{}", dev.address.rsplit(':').next().unwrap());
    let mut script = format!("{preparation}\n");
    for step in steps {
        script.push_str(&step.commands.replace(":8080", &port));
        script.push_str("printf '\\n%s\\n=====\\n' $?\n");
    }
    let output = Command::new("bash")
        .args(["-c", &script])
        .env_remove("TENANTRY_PROFILE")
        .env_remove("DATABASE_URL")
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<_> = text.split_terminator("\n=====\n").map(answer).collect();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(answers.len(), steps.len(), "{errors}");
    answers
}

fn answer(printed: &str) -> Answer {
    let (text, status) = printed.rsplit_once('\n').unwrap();
    Answer {
        text: text.to_owned(),
        succeeded: status == "0",
    }
}

/// Walks a page below `docs` in a folder that has the functions of the pages, and names each step whose answer is another one.
fn walk(name: &str, dev: &Dev, export: &str, folder: &Path) -> String {
    let steps = steps(blocks(&page(&format!("docs/{name}.md"))));
    let preparation = format!(
        "{export}\nexport A=http://{} LOG={}",
        dev.address,
        folder.join("demo.log").display()
    );
    let answers = take(&steps, dev, &preparation, folder);
    let complaints = steps
        .iter()
        .zip(&answers)
        .filter_map(|(step, answer)| step.complaint(answer));
    complaints
        .map(|complaint| format!("{name}.md:\n{complaint}"))
        .collect()
}

/// Each answer that these pages show is the one that a demo gives, when the blocks are pasted in their order.
#[test]
fn pages_give_the_answers_shown() {
    let folder = Folder::new("pages");
    let log = folder.0.join("demo.log");
    std::fs::create_dir(folder.0.join("docs")).unwrap();
    std::fs::copy(root().join("docs/demo.sh"), folder.0.join("docs/demo.sh")).unwrap();
    let data = folder.0.join("data");
    let mut dev = Dev::start_with_log(&data, NOTHING, &log);
    let export = dev.line_for_another_terminal();
    let mut complaints: String = PAGES
        .iter()
        .map(|page| walk(page, &dev, &export, &folder.0))
        .collect();
    assert_eq!(dev.stop(), Some(0));
    // This page begins with the setting.
    let config = [("TENANTRY__SIGNUP__CHALLENGE__PROVIDER", "proof_of_work")];
    let dev = Dev::start_with_log(&data, &config, &log);
    complaints += &walk("challenges", &dev, &export, &folder.0);
    assert_eq!(dev.stop(), Some(0));
    assert!(complaints.is_empty(), "{complaints}");
}

#[test]
fn tour_gives_the_answers_shown_when_taken_twice() {
    let page = page("README.md");
    let tour = ["A tour", "Operators"].map(|heading| steps(blocks(section(&page, heading))));
    let steps: Vec<_> = tour.into_iter().flatten().collect();
    assert!(steps.iter().filter(|step| step.answer.is_some()).count() > 8);
    let folder = Folder::new("tour");
    let mut dev = Dev::start(&folder.0);
    let export = dev.line_for_another_terminal();
    for time in ["the first time", "the second time"] {
        for (step, answer) in steps.iter().zip(take(&steps, &dev, &export, &folder.0)) {
            assert_eq!(step.complaint(&answer), None, "{time}");
            assert!(!answer.text.is_empty(), "{time}: {}", step.commands);
        }
    }
    assert_eq!(dev.stop(), Some(0));
}

/// A prompt in front of a command makes it fail when it is pasted, and so does a variable that nobody has set.
#[test]
fn command_blocks_of_documentation_can_be_pasted() {
    let root = root();
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
