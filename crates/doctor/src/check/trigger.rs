//! What fires, and what does not.

use super::{Check, Verdict};
use crate::subject::Subject;
use crate::{Finding, Object, Severity, Step, quote};

pub(super) const CHECKS: &[Check] = &[
    Check {
        id: "TRG001",
        title: "No trigger and no foreign key is switched off",
        why: "A foreign key whose triggers are off lets rows refer to rows of another tenant, or of none.",
        severity: Severity::Error,
        guards: true,
        look: all_fire,
    },
    Check {
        id: "TRG002",
        title: "No trigger on a tenant table sends to other sessions or servers",
        why: "Every role of the database can listen to a notification, whichever tenant's row it is about.",
        severity: Severity::Warning,
        guards: false,
        look: none_sends,
    },
    Check {
        id: "TRG003",
        title: "No event trigger acts on changes of the schema",
        why: "It runs as whoever changes the schema, mostly the owner, and can grant what it creates to others.",
        severity: Severity::Warning,
        guards: false,
        look: no_event_triggers,
    },
    Check {
        id: "SUB001",
        title: "No subscription writes into the database",
        why: "Rows from another server are written without policies, for whichever tenant they name.",
        severity: Severity::Error,
        guards: false,
        look: nothing_is_subscribed,
    },
];

fn all_fire(subject: &Subject<'_>) -> Verdict {
    Verdict::of_each(
        "silent trigger",
        subject.catalogue.silent_triggers.iter(),
        |trigger| {
            let table = subject.relation(trigger.relation)?.sql_name();
            Some(match &trigger.constraint {
                Some(key) => {
                    let sql = format!("ALTER TABLE {table} ENABLE TRIGGER ALL");
                    let object = Object::part("constraint", key, &table);
                    Finding::new(object, "is not enforced: its trigger is switched off")
                        .mend(Step::Keys, [sql])
                }
                None => {
                    let sql = format!(
                        "ALTER TABLE {table} ENABLE TRIGGER {}",
                        quote::identifier(&trigger.name)
                    );
                    let object = Object::part("trigger", &trigger.name, &table);
                    Finding::new(object, "is switched off").mend(Step::Code, [sql])
                }
            })
        },
    )
}

fn none_sends(subject: &Subject<'_>) -> Verdict {
    Verdict::of_each(
        "sending trigger",
        subject.catalogue.sending_triggers.iter(),
        |trigger| {
            let table = subject
                .relation(trigger.relation)
                .filter(|table| subject.is_tenant(table))?;
            let table = table.sql_name();
            let found = format!(
                "runs {}, which uses {}",
                quote::printable(&trigger.function),
                quote::printable(&trigger.by)
            );
            let sql = format!("DROP TRIGGER {} ON {table}", quote::identifier(&trigger.name));
            let finding = Finding::new(Object::part("trigger", &trigger.name, &table), found);
            Some(
                finding
                    .mend(Step::Code, [sql])
                    .caution("What listens has to find out in another way first."),
            )
        },
    )
}

fn no_event_triggers(subject: &Subject<'_>) -> Verdict {
    Verdict::of_each(
        "event trigger",
        subject.catalogue.event_triggers.iter(),
        |trigger| {
            let name = quote::identifier(&trigger.name);
            let sql = format!("ALTER EVENT TRIGGER {name} DISABLE");
            let found = format!("runs {}", quote::printable(&trigger.function));
            let finding = Finding::new(Object::new("event trigger", name), found).mend(Step::Code, [sql]);
            Some(finding.caution("What it does has to be done in another way first."))
        },
    )
}

fn nothing_is_subscribed(subject: &Subject<'_>) -> Verdict {
    Verdict::of_each("subscription", subject.catalogue.subscriptions.iter(), |one| {
        let name = quote::identifier(&one.name);
        let sql = format!("ALTER SUBSCRIPTION {name} DISABLE");
        let finding = Finding::new(Object::new("subscription", name), "writes rows of another server");
        Some(
            finding
                .mend(Step::Code, [sql])
                .caution("The tables stop getting the other server's changes."),
        )
    })
}
