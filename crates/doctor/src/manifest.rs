use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use sqlx::PgConnection;

use crate::catalogue::{Catalogue, Depth, Fact};
use crate::{DoctorError, Options};

/// What the catalogue of a database holds: every object that no initdb made, who may use it, and what the
/// application's roles are.
///
/// [`record`](crate::record()) makes one from a database that is known to be good, as a rule a fresh one to which the
/// migrations were applied. With it in [`Options::expected`] an examination reports every difference. As text it has one
/// fact on a line, sorted: kind, object and what holds for it, with a tab between.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    facts: BTreeSet<Fact>,
}

/// The kind of the facts that say which migrations were applied.
const MIGRATION: &str = "migration";

impl Manifest {
    pub(crate) async fn record(
        connection: &mut PgConnection,
        options: &Options,
    ) -> Result<Self, DoctorError> {
        let catalogue = Catalogue::read(connection, options, Depth::Facts).await?;
        let migrations = catalogue.migrations.unwrap_or_default();
        let facts = catalogue
            .facts
            .iter()
            .chain(&migrations)
            .map(Fact::on_one_line)
            .collect();
        Ok(Self { facts })
    }

    /// What holds for objects, without the migrations.
    pub(crate) fn facts(&self) -> impl Iterator<Item = &Fact> {
        self.facts.iter().filter(|fact| fact.kind != MIGRATION)
    }

    /// The names of the migrations that make it so.
    pub(crate) fn migrations(&self) -> BTreeSet<&str> {
        let all = self.facts.iter().filter(|fact| fact.kind == MIGRATION);
        all.map(|fact| fact.object.as_str()).collect()
    }

    /// The names of its tables, with their schemas.
    pub(crate) fn tables(&self) -> BTreeSet<&str> {
        let all = self.facts.iter().filter(|fact| fact.kind == "table");
        all.map(|fact| fact.object.as_str()).collect()
    }
}

impl FromStr for Manifest {
    type Err = DoctorError;

    /// Reads what [`Display`](fmt::Display) writes. Empty lines, and lines that begin with `#`, say nothing.
    fn from_str(text: &str) -> Result<Self, DoctorError> {
        let lines = text.lines().enumerate();
        let meant = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        let facts = meant.map(|(index, line)| {
            let mut parts = line.splitn(3, '\t').map(str::to_owned);
            match (parts.next(), parts.next()) {
                (Some(kind), Some(object)) => Ok(Fact {
                    kind,
                    object,
                    fact: parts.next().unwrap_or_default(),
                }),
                _ => Err(DoctorError::Manifest { line: index + 1 }),
            }
        });
        Ok(Self {
            facts: facts.collect::<Result<_, _>>()?,
        })
    }
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Fact { kind, object, fact } in &self.facts {
            writeln!(f, "{}", format!("{kind}\t{object}\t{fact}").trim_end())?;
        }
        Ok(())
    }
}

impl Fact {
    /// Without line breaks and tabs, which would end a line or a part of it, and without the spaces around them.
    pub(crate) fn on_one_line(&self) -> Self {
        let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        Self {
            kind: line(&self.kind),
            object: line(&self.object),
            fact: line(&self.fact),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let text =
            "grant\tapp on TABLE public.tasks\tSELECT\nmigration\tm1\ntable\tpublic.tasks\towned by me\n";
        let manifest: Manifest = text.parse().unwrap();
        assert_eq!(manifest.to_string(), text);
        assert_eq!(manifest.migrations(), BTreeSet::from(["m1"]));
        assert_eq!(manifest.tables(), BTreeSet::from(["public.tasks"]));
        assert_eq!(manifest.facts().count(), 2);
        let with_comment: Manifest = format!("# made by a test\n\n{text}").parse().unwrap();
        assert_eq!(with_comment, manifest);
    }

    #[test]
    fn a_line_without_an_object_is_refused() {
        let error = "migration\tm1\nnonsense".parse::<Manifest>().unwrap_err();
        assert!(matches!(error, DoctorError::Manifest { line: 2 }), "{error}");
    }

    #[test]
    fn a_fact_is_one_line() {
        let fact = Fact {
            kind: "constraint".to_owned(),
            object: "a on b".to_owned(),
            fact: "CHECK (a\n\t AND b)".to_owned(),
        };
        assert_eq!(fact.on_one_line().fact, "CHECK (a AND b)");
    }
}
