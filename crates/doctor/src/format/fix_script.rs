use std::collections::BTreeSet;

use crate::quote::printable;
use crate::{CheckResult, Finding, Mend, Report, Step};

impl Report {
    /// One SQL script that mends what can be mended without thinking, in a transaction and in an order in which
    /// one thing finds the other there. What drops something, or has to be thought about, is a comment in it, and so is
    /// each finding that no SQL mends, with what to do instead. Where nothing can be mended there are only comments.
    pub fn fix_script(&self) -> String {
        let mut mends: Vec<(&CheckResult, &Finding, &Mend)> = self
            .checks
            .iter()
            .flat_map(|check| check.findings.iter().map(move |finding| (check, finding)))
            .filter_map(|(check, finding)| Some((check, finding, finding.mend.as_ref()?)))
            .collect();
        mends.sort_by_key(|(_, _, mend)| mend.step);
        let mut script = Script::default();
        script.head(self, &mends);
        let mut step = None;
        for (check, finding, mend) in mends {
            if step.replace(mend.step) != Some(mend.step) {
                script.comment(&format!("== {}", title(mend.step)));
                script.blank();
            }
            script.mend(check, finding, mend);
        }
        if step.is_some() {
            script.lines.push("COMMIT;".to_owned());
        }
        script.unmended(self);
        script.lines.join("\n") + "\n"
    }
}

#[derive(Default)]
struct Script {
    lines: Vec<String>,
    /// Two findings may need the same thing done, which can be done only once.
    written: BTreeSet<String>,
}

impl Script {
    fn head(&mut self, report: &Report, mends: &[(&CheckResult, &Finding, &Mend)]) {
        self.comment(&format!(
            "What tenantry doctor would mend in the database {}.",
            report.database
        ));
        if mends.is_empty() {
            self.comment("There is no finding that SQL mends.");
            return;
        }
        self.comment(
            "It locks tables and reads some of them in full, so choose a quiet hour. When a statement fails",
        );
        self.comment("nothing is changed: mostly because rows break the rule that it would make.");
        self.blank();
        self.lines.push("BEGIN;".to_owned());
        self.lines.push("SET LOCAL search_path = pg_catalog;".to_owned());
        self.blank();
        let statements = mends
            .iter()
            .filter(|(_, _, mend)| mend.is_safe())
            .flat_map(|(_, _, mend)| &mend.statements);
        if statements
            .into_iter()
            .any(|statement| statement.contains(" FOREIGN KEY ") || statement.contains(" VALIDATE "))
        {
            self.lines.push(SEES_ALL_ROWS.to_owned());
            self.blank();
        }
    }

    fn mend(&mut self, check: &CheckResult, finding: &Finding, mend: &Mend) {
        self.comment(&format!("{}, {}: {}", check.id, finding.object, finding.found));
        if let Some(caution) = &mend.caution {
            self.comment(&format!("Think first: {caution}"));
        }
        for statement in &mend.statements {
            let line = format!("{statement};");
            match (mend.is_safe(), self.written.contains(statement)) {
                (false, _) => self.comment(&line),
                (true, true) => self.comment("(as above)"),
                (true, false) => {
                    self.lines.push(line);
                    self.written.insert(statement.clone());
                }
            }
        }
        self.blank();
    }

    /// Names each finding of a failed check that no SQL mends.
    fn unmended(&mut self, report: &Report) {
        for check in report.failures() {
            for finding in check.findings.iter().filter(|finding| finding.mend.is_none()) {
                self.blank();
                self.comment(&format!("{}, {}: {}", check.id, finding.object, finding.found));
                self.comment(&format!("No SQL is known that mends it. {}.", check.advice()));
            }
        }
    }

    /// Nothing gets out of a comment: it is one line, whatever a name has in it.
    fn comment(&mut self, text: &str) {
        self.lines.push(format!("-- {}", printable(text)));
    }

    fn blank(&mut self) {
        self.lines.push(String::new());
    }
}

fn title(step: Step) -> &'static str {
    match step {
        Step::Roles => "Roles and settings",
        Step::Columns => "Columns",
        Step::Keys => "Keys, references and indexes",
        Step::Policies => "Policies",
        Step::RowSecurity => "Row-level security",
        Step::Code => "Views, functions and the like",
        Step::Grants => "Grants",
    }
}

/// PostgreSQL checks the rows that are there by a query, under the policies of whoever adds the reference. An owner
/// for whom they are forced sees no row, and the reference counts as valid although nothing was checked.
const SEES_ALL_ROWS: &str = "\
DO $$ BEGIN
    IF NOT (SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = current_user) THEN
        RAISE EXCEPTION 'run this as a superuser, or with BYPASSRLS: others would add references unchecked';
    END IF;
END $$;";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Object;

    #[test]
    fn nothing_gets_out_of_a_comment() {
        let mut script = Script::default();
        let object = Object::new("table", "x\nDROP TABLE y; --\r\u{2028}");
        script.comment(&format!("{object}"));
        assert_eq!(script.lines, ["-- table x DROP TABLE y; -- \\u{2028}"]);
    }
}
