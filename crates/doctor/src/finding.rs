use std::fmt;

use serde::Serialize;

use crate::quote;

/// One object that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is about.
    pub object: Object,
    /// What was found, in a sentence without a full stop.
    pub found: String,
    /// What would make it right, where SQL can.
    pub mend: Option<Mend>,
}

/// Something in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Object {
    /// What sort of thing it is, such as `table` or `policy`.
    pub kind: &'static str,
    /// Its full name as SQL writes it, and for a part of a table also which.
    pub name: String,
}

/// The SQL that makes a finding go away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mend {
    /// The statements, in order, each without its semicolon.
    pub statements: Vec<String>,
    /// When in a script it has its place.
    pub step: Step,
    /// Why nobody should run it without thinking; such a mend is a comment in the script.
    pub caution: Option<String>,
}

/// The parts of a script, in the order in which one needs another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// What a role is and whose member, and what is set for it.
    Roles,
    /// Columns and their constraints.
    Columns,
    /// Unique keys, references and indexes.
    Keys,
    /// Policies, before row-level security is switched on and would hide everything.
    Policies,
    /// Row-level security itself.
    RowSecurity,
    /// Views, functions, triggers, rules and publications.
    Code,
    /// What is granted to whom.
    Grants,
}

impl Finding {
    pub(crate) fn new(object: Object, found: impl Into<String>) -> Self {
        Self {
            object,
            found: found.into(),
            mend: None,
        }
    }

    /// With a mend that a script may run.
    pub(crate) fn mend<S: Into<String>>(
        mut self,
        step: Step,
        statements: impl IntoIterator<Item = S>,
    ) -> Self {
        let statements = statements
            .into_iter()
            .map(|one| quote::visible(&one.into()))
            .collect();
        self.mend = Some(Mend {
            statements,
            step,
            caution: None,
        });
        self
    }

    /// With a reason not to run the mend unseen.
    pub(crate) fn caution(mut self, why: &str) -> Self {
        if let Some(mend) = &mut self.mend {
            mend.caution = Some(why.to_owned());
        }
        self
    }
}

impl Object {
    pub(crate) fn new(kind: &'static str, name: impl Into<String>) -> Self {
        Self {
            kind,
            name: name.into(),
        }
    }

    /// A part of a table: a policy, a trigger, a key.
    pub(crate) fn part(kind: &'static str, name: &str, of: &str) -> Self {
        Self::new(kind, format!("{} on {of}", quote::identifier(name)))
    }
}

impl fmt::Display for Object {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.kind, quote::printable(&self.name))
    }
}

impl Mend {
    /// The statements as one text, each with its semicolon and on a line of its own.
    pub fn sql(&self) -> String {
        let lines: Vec<String> = self.statements.iter().map(|one| format!("{one};")).collect();
        lines.join("\n")
    }

    /// Whether a script may run it unseen.
    pub fn is_safe(&self) -> bool {
        self.caution.is_none()
    }
}
