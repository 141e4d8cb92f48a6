//! What the schemas of the OpenAPI document have in common, filled in for all of them.

use std::collections::{BTreeMap, BTreeSet};

use utoipa::openapi::{
    Content, OpenApi, Ref, RefOr, Schema,
    path::{Operation, PathItem},
    schema::{AdditionalProperties, ArrayItems, Object, SchemaType, Type},
};

use crate::Excess;

/// Bodies of protocols that allow members of their own making.
const EXTENSIBLE: [&str; 2] = ["CloudEvent", "OfrepRequest"];

const PREFIX: &str = "#/components/schemas/";

/// Schemas by name.
pub(crate) type Schemas = BTreeMap<String, RefOr<Schema>>;

/// Completes every schema of the document:
///
/// * a problem names the members of [`Excess`] as optional properties,
/// * an object without properties says that it accepts any (`additionalProperties: true`),
/// * an object of a request body says that it accepts no others (`false`), because unknown fields are refused, and is no
///   `null` where the body is optional,
/// * the items of a list refer to their schema, and schemas that nothing refers to are removed.
pub(crate) fn complete(document: &mut OpenApi) {
    let Some(components) = document.components.as_mut() else {
        return;
    };
    let schemas = &mut components.schemas;
    if let Some(RefOr::T(Schema::Object(problem))) = schemas.get_mut("Problem") {
        problem.properties.extend(Excess::properties());
    }
    refer_to_items(schemas);
    let items = document.paths.paths.values_mut();
    for content in items.flat_map(operations).flat_map(contents) {
        content
            .schema
            .iter_mut()
            .for_each(|schema| walk(schema, &mut open));
    }
    for schema in schemas.values_mut() {
        walk(schema, &mut open);
    }
    close_bodies(document);
    remove_unused(document);
}

/// The operations of a path.
pub(crate) fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let all = [
        &mut item.get,
        &mut item.post,
        &mut item.put,
        &mut item.patch,
        &mut item.delete,
    ];
    all.into_iter().flatten()
}

/// The bodies of an operation, asked for and answered.
fn contents(operation: &mut Operation) -> impl Iterator<Item = &mut Content> {
    let asked = operation.request_body.iter_mut().filter_map(inline);
    let asked = asked.flat_map(|body| body.content.values_mut());
    let answered = operation.responses.responses.values_mut().filter_map(inline);
    let answered = answered.flat_map(|response| response.content.values_mut());
    asked.chain(answered).filter_map(inline)
}

/// What is there itself and not a reference to it.
fn inline<T>(item: &mut RefOr<T>) -> Option<&mut T> {
    match item {
        RefOr::T(item) => Some(item),
        RefOr::Ref(_) => None,
    }
}

/// The derive copies the item of a generic list into the list, whose name is then that of the list, an underscore, and
/// that of the item.
fn refer_to_items(schemas: &mut Schemas) {
    let names: BTreeSet<String> = schemas.keys().cloned().collect();
    for (name, schema) in schemas {
        let item = name.split_once('_').map(|(_, item)| item);
        let (Some(item), RefOr::T(Schema::Object(list))) = (item, schema) else {
            continue;
        };
        for property in list.properties.values_mut().filter(|_| names.contains(item)) {
            if let RefOr::T(Schema::Array(array)) = property {
                array.items = ArrayItems::RefOrSchema(Box::new(Ref::from_schema_name(item).into()));
            }
        }
    }
}

/// The schema that a reference names.
pub(crate) fn referred<'s>(reference: &Ref, schemas: &'s Schemas) -> Option<&'s RefOr<Schema>> {
    schemas.get(reference.ref_location.strip_prefix(PREFIX)?)
}

fn open(object: &mut Object) {
    if is_object(object) && object.properties.is_empty() && object.additional_properties.is_none() {
        object.additional_properties = Some(Box::new(AdditionalProperties::FreeForm(true)));
    }
}

fn close(object: &mut Object, additional: &AdditionalProperties<Schema>) {
    if is_object(object) && !object.properties.is_empty() && object.additional_properties.is_none() {
        object.additional_properties = Some(Box::new(additional.clone()));
    }
}

fn is_object(object: &Object) -> bool {
    match &object.schema_type {
        SchemaType::Type(kind) => *kind == Type::Object,
        SchemaType::Array(kinds) => kinds.contains(&Type::Object),
        SchemaType::AnyValue => false,
    }
}

/// The derive writes an optional body as an object or `null`. Such a body may be absent, and is no `null`.
fn without_null(schema: &mut RefOr<Schema>) {
    let reference = match schema {
        RefOr::T(Schema::OneOf(one_of)) => match &one_of.items[..] {
            [RefOr::T(_), RefOr::Ref(reference)] | [RefOr::Ref(reference), RefOr::T(_)] => {
                Some(reference.clone())
            }
            _ => None,
        },
        RefOr::T(_) | RefOr::Ref(_) => None,
    };
    if let Some(reference) = reference {
        *schema = RefOr::Ref(reference);
    }
}

fn close_bodies(document: &mut OpenApi) {
    let mut roots = BTreeSet::new();
    for operation in document.paths.paths.values_mut().flat_map(operations) {
        let body = operation.request_body.as_mut().and_then(inline);
        let contents = body.into_iter().flat_map(|body| body.content.values_mut());
        for schema in contents.filter_map(|content| inline(content)?.schema.as_mut()) {
            without_null(schema);
            roots.extend(references(schema));
        }
    }
    let Some(components) = document.components.as_mut() else {
        return;
    };
    for name in reachable(&components.schemas, roots) {
        let additional = AdditionalProperties::FreeForm(EXTENSIBLE.contains(&name.as_str()));
        if let Some(schema) = components.schemas.get_mut(&name) {
            walk(schema, &mut |object| close(object, &additional));
        }
    }
}

fn remove_unused(document: &mut OpenApi) {
    let mut roots = BTreeSet::from(["Problem".to_owned()]);
    for content in document
        .paths
        .paths
        .values_mut()
        .flat_map(operations)
        .flat_map(contents)
    {
        roots.extend(content.schema.iter().flat_map(references));
    }
    if let Some(components) = document.components.as_mut() {
        let used = reachable(&components.schemas, roots);
        components.schemas.retain(|name, _| used.contains(name));
    }
}

/// The names of the schemas that some of them lead to, themselves included.
fn reachable(schemas: &Schemas, roots: BTreeSet<String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut next: Vec<String> = roots.into_iter().collect();
    while let Some(name) = next.pop() {
        if let Some(schema) = schemas.get(&name)
            && found.insert(name)
        {
            next.extend(references(schema));
        }
    }
    found
}

/// The names of the schemas that a schema refers to.
fn references(schema: &RefOr<Schema>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let text = serde_json::to_value(schema).unwrap_or_default();
    collect(&text, &mut found);
    found
}

fn collect(value: &serde_json::Value, found: &mut BTreeSet<String>) {
    match value {
        serde_json::Value::Object(members) => {
            let reference = members.get("$ref").and_then(|reference| reference.as_str());
            found.extend(
                reference
                    .and_then(|text| text.strip_prefix(PREFIX))
                    .map(str::to_owned),
            );
            members.values().for_each(|member| collect(member, found));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::Number(_)
        | serde_json::Value::String(_) => {}
    }
}

/// Visits every object in a schema, without following references.
fn walk(schema: &mut RefOr<Schema>, visit: &mut impl FnMut(&mut Object)) {
    let RefOr::T(schema) = schema else { return };
    match schema {
        Schema::Object(object) => {
            visit(object);
            object
                .properties
                .values_mut()
                .for_each(|property| walk(property, visit));
            if let Some(AdditionalProperties::RefOr(values)) = object.additional_properties.as_deref_mut() {
                walk(values, visit);
            }
        }
        Schema::Array(array) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                walk(items, visit);
            }
        }
        Schema::OneOf(choice) => choice.items.iter_mut().for_each(|item| walk(item, visit)),
        Schema::AnyOf(choice) => choice.items.iter_mut().for_each(|item| walk(item, visit)),
        Schema::AllOf(parts) => parts.items.iter_mut().for_each(|item| walk(item, visit)),
        _ => {}
    }
}
