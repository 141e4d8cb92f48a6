//! The section `webhooks` of the OpenAPI document, which is made of the catalogue of events.

use serde_json::{Value, json};
use tenantry_domain::events::{EventType, EventTypes};
use utoipa::openapi::path::Paths;

/// One webhook for each type of events. A type that cannot be expressed is left out; a test finds it.
pub(crate) fn webhooks(types: &EventTypes) -> Option<Paths> {
    let all = types.all().iter();
    let items: serde_json::Map<_, _> = all
        .map(|one| (one.name().to_owned(), json!({ "post": operation(one) })))
        .collect();
    serde_json::from_value(Value::Object(items)).ok()
}

fn operation(one: &EventType) -> Value {
    let name = one.name();
    let example = json!({"type": name, "timestamp": "2026-01-31T12:00:00Z", "data": one.example()});
    let schema = json!({
        "type": "object",
        "required": ["type", "timestamp", "data"],
        "properties": {
            "type": {"type": "string", "enum": [name]},
            "timestamp": {"type": "string", "format": "date-time"},
            "data": one.schema(),
        },
    });
    json!({
        "operationId": format!("webhook_{}", name.replace('.', "_")),
        "summary": format!("Receive {name}"),
        "description": format!("{} Since version {}.", one.about(), one.added_in()),
        "tags": ["Events"],
        "security": [],
        "requestBody": {
            "required": true,
            "content": {"application/json": {"schema": schema, "example": example}},
        },
        "responses": {"2XX": {"description": "The event was received. Any other status is a failure."}},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_in_the_document_with_its_schema() {
        let types = EventTypes::default();
        let document = serde_json::to_value(webhooks(&types)).unwrap();
        assert_eq!(document.as_object().unwrap().len(), types.all().len());
        for one in types.all() {
            let content = &document[one.name()]["post"]["requestBody"]["content"]["application/json"];
            assert_eq!(content["example"]["data"], one.example(), "{}", one.name());
            let data = &content["schema"]["properties"]["data"];
            assert_eq!(
                data["properties"]["object"]["required"],
                json!(["id"]),
                "{}",
                one.name()
            );
            let properties = &data["properties"]["object"]["properties"];
            for field in one.object() {
                let (found, expected) = (&properties[field.name()], field.schema());
                for keyword in ["type", "format"] {
                    assert_eq!(
                        found[keyword],
                        expected[keyword],
                        "{} {}",
                        one.name(),
                        field.name()
                    );
                }
            }
        }
    }
}
