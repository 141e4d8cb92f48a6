//! What the runtime role and the platform roles own.

use super::{Check, Verdict, count};
use crate::catalogue::LargeObjects;
use crate::subject::Subject;
use crate::{Finding, Object, Severity, Step, quote};

pub(super) const CHECKS: &[Check] = &[Check {
    id: "ROLE006",
    title: "The runtime role and the platform roles own nothing",
    why: "An owner can switch row-level security off, drop policies and grant anything to anybody.",
    severity: Severity::Critical,
    guards: true,
    look: owns_nothing,
}];

fn owns_nothing(subject: &Subject<'_>) -> Verdict {
    let owned = owned(subject);
    let large = subject.catalogue.server.large_objects.iter();
    let large = large.filter(|one| subject.workers().any(|role| role == one.owner));
    let number = owned.len() + large.clone().map(|one| one.number).sum::<usize>();
    let mine = owned
        .into_iter()
        .filter(|(_, owner)| subject.workers().any(|role| role == owner));
    let other = other_owner(subject);
    let to = other.as_deref().unwrap_or("CURRENT_USER");
    let findings = mine.map(|(object, owner)| {
        let found = format!("belongs to {}", quote::identifier(&owner));
        let word = if object.kind == "function" {
            "ROUTINE".to_owned()
        } else {
            object.kind.to_uppercase()
        };
        let sql = format!("ALTER {word} {} OWNER TO {to}", object.name);
        Finding::new(object, found).mend(Step::Roles, [sql])
    });
    let findings = findings.chain(large.map(|one| large_objects(one, to)));
    let why = "The new owner must be the role that runs the migrations.";
    let findings = findings.map(|finding| finding.caution(why)).collect();
    Verdict::of(count(number, "object"), findings)
}

/// One finding for all of an owner, of which there may be millions.
fn large_objects(found: &LargeObjects, to: &str) -> Finding {
    let LargeObjects { owner, number, first } = found;
    let owner = quote::identifier(owner);
    let object = Object::new("large object", first.to_string());
    if *number == 1 {
        let sql = format!("ALTER LARGE OBJECT {first} OWNER TO {to}");
        return Finding::new(object, format!("belongs to {owner}")).mend(Step::Roles, [sql]);
    }
    let body = format!(
        "DECLARE one oid; BEGIN FOR one IN SELECT oid FROM pg_largeobject_metadata WHERE lomowner = {}::regrole LOOP \
         EXECUTE format('ALTER LARGE OBJECT %s OWNER TO %s', one, {}); END LOOP; END",
        quote::literal(&owner),
        quote::literal(to)
    );
    let sql = format!("DO {}", quote::literal(&body));
    let found = format!("and {} more belong to {owner}", number - 1);
    Finding::new(object, found).mend(Step::Roles, [sql])
}

/// Everything that has an owner, with it.
fn owned(subject: &Subject<'_>) -> Vec<(Object, String)> {
    let catalogue = subject.catalogue;
    let (server, plain) = (&catalogue.server, quote::identifier);
    let database = (
        Object::new("database", plain(&server.database)),
        server.database_owner.clone(),
    );
    let schemas = catalogue.schemas.iter();
    let schemas = schemas.map(|schema| (Object::new("schema", plain(&schema.name)), schema.owner.clone()));
    let relations = catalogue.relations.iter();
    let relations = relations.map(|one| (Object::new(one.kind.word(), one.sql_name()), one.owner.clone()));
    let functions = catalogue.functions.iter().filter(|function| !function.built_in);
    let functions = functions.map(|one| (Object::new("function", one.sql_name()), one.owner.clone()));
    std::iter::once(database)
        .chain(schemas)
        .chain(relations)
        .chain(functions)
        .collect()
}

/// Somebody else who owns tables of tenants, as SQL writes it.
fn other_owner(subject: &Subject<'_>) -> Option<String> {
    let mut owners = subject.tenant_tables().map(|table| table.owner.as_str());
    owners
        .find(|owner| !subject.workers().any(|role| role == *owner))
        .map(quote::identifier)
}
