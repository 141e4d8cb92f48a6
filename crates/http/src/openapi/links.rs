//! The links of the OpenAPI document: from an operation that creates something to those that read and change it.

use std::collections::BTreeMap;

use utoipa::openapi::{
    OpenApi, RefOr, Schema,
    link::{Link, LinkBuilder},
    path::Operation,
};

use crate::openapi::schemas::{Schemas, operations, referred};

/// Links every operation that answers 201 with the operations whose path continues its own by one parameter, when the
/// response has a property of that name: `POST /projects` with `GET /projects/{id}` and `GET /projects/{id}/tasks`. What
/// is created below something else and read on its own, as `POST /projects/{id}/tasks` and `GET /tasks/{id}`, is linked
/// too.
pub(crate) fn complete(document: &mut OpenApi) {
    let targets = targets(document);
    let schemas = document
        .components
        .as_ref()
        .map(|components| components.schemas.clone());
    let schemas = schemas.unwrap_or_default();
    for (path, item) in &mut document.paths.paths {
        let Some(create) = item.post.as_mut() else {
            continue;
        };
        let links = links(path, create, &targets, &schemas);
        if let Some(RefOr::T(created)) = create.responses.responses.get_mut("201") {
            created
                .links
                .extend(links.into_iter().map(|(name, link)| (name, link.into())));
        }
    }
}

/// Path and id of every operation.
fn targets(document: &mut OpenApi) -> Vec<(String, String)> {
    let paths = document.paths.paths.iter_mut();
    let of_path = paths.flat_map(|(path, item)| operations(item).map(move |operation| (path, operation)));
    of_path
        .filter_map(|(path, operation)| Some((path.clone(), operation.operation_id.clone()?)))
        .collect()
}

fn links(
    path: &str,
    create: &Operation,
    targets: &[(String, String)],
    schemas: &Schemas,
) -> BTreeMap<String, Link> {
    let collection = path.rsplit('/').next().unwrap_or_default();
    let own = [path.to_owned(), format!("/api/v1/{collection}")];
    let mut links = BTreeMap::new();
    for (target, operation) in targets {
        let rest = own
            .iter()
            .find_map(|own| target.strip_prefix(own)?.strip_prefix("/{"));
        let Some((parameter, rest)) = rest.and_then(|rest| rest.split_once('}')) else {
            continue;
        };
        if rest.contains('{') || !answers_with(create, parameter, schemas) {
            continue;
        }
        let mut link = LinkBuilder::new().operation_id(operation);
        let above = target.starts_with(path).then(|| parameters(path));
        for name in above.into_iter().flatten() {
            link = link.parameter(name, format!("$request.path.{name}"));
        }
        let link = link.parameter(parameter, format!("$response.body#/{parameter}"));
        links.insert(operation.clone(), link.build());
    }
    links
}

/// The names in braces of a path.
fn parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}

/// Whether the operation's 201 has a property.
fn answers_with(create: &Operation, property: &str, schemas: &Schemas) -> bool {
    let Some(RefOr::T(created)) = create.responses.responses.get("201") else {
        return false;
    };
    let bodies = created.content.values().filter_map(|content| match content {
        RefOr::T(content) => content.schema.as_ref(),
        RefOr::Ref(_) => None,
    });
    bodies.into_iter().any(|body| has(body, property, schemas))
}

fn has(schema: &RefOr<Schema>, property: &str, schemas: &Schemas) -> bool {
    match schema {
        RefOr::Ref(reference) => {
            referred(reference, schemas).is_some_and(|schema| has(schema, property, schemas))
        }
        RefOr::T(Schema::Object(object)) => object.properties.contains_key(property),
        RefOr::T(Schema::AllOf(parts)) => parts.items.iter().any(|part| has(part, property, schemas)),
        RefOr::T(_) => false,
    }
}
