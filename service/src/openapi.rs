//! `openapi.json`, generated from the handlers.

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::{OpenApi, ToSchema};

use crate::{
    AppState,
    routes::{
        admin,
        files::{self, ListFilesResponse, PostFileResponse},
    },
};

/// Body of a 422.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HTTPValidationError)]
pub struct HttpValidationError {
    /// All that is wrong with the request.
    #[schema(required = false)]
    pub detail: Vec<ValidationError>,
}

/// One thing that is wrong with a request.
#[derive(Debug, Serialize, ToSchema)]
pub struct ValidationError {
    /// Where it is, e.g. `["query", "content"]`.
    #[schema(inline)]
    pub loc: Vec<LocationPart>,
    /// What it is, for people.
    pub msg: String,
    /// What it is, for programs.
    pub r#type: String,
    /// What was given instead.
    #[schema(required = false)]
    pub input: Value,
    /// More about it.
    #[schema(required = false, value_type = Object)]
    pub ctx: Value,
}

/// A step of the way to the part of a request that is wrong.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum LocationPart {
    /// A name.
    Name(String),
    /// A position in a list.
    Index(i64),
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Serverless FastAPI",
        version = "1.0.0",
        description = include_str!("../assets/description.md"),
    ),
    paths(files::get, files::create, files::delete, files::list, admin::healthcheck),
    components(schemas(PostFileResponse, ListFilesResponse, HttpValidationError, ValidationError)),
)]
struct Api;

/// The document for callers who know the API under `root_path` (empty for none).
pub fn api(root_path: &str) -> Value {
    let mut api = serde_json::to_value(Api::openapi()).unwrap_or_default();
    if let Some(info) = api["info"].as_object_mut() {
        info.retain(|key, _| matches!(key.as_str(), "title" | "version" | "description"));
    }
    if let Some(api) = api.as_object_mut() {
        api.remove("tags");
        if !root_path.is_empty() {
            api.insert("servers".into(), json!([{ "url": root_path }]));
        }
    }
    for operation in operations(&mut api) {
        for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
            as_documented_parameter(parameter);
        }
        for response in operation.get_mut("responses").and_then(Value::as_object_mut).into_iter().flatten() {
            as_documented_response(response.1);
        }
    }
    if let Some(schemas) = api.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
        schemas.remove("LocationPart");
        for (name, schema) in schemas {
            as_documented_schema(name, schema);
        }
    }
    api
}

/// `GET /openapi.json`
pub async fn document(State(app): State<AppState>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], app.openapi.clone()).into_response()
}

fn operations(api: &mut Value) -> impl Iterator<Item = &mut Map<String, Value>> {
    api["paths"]
        .as_object_mut()
        .into_iter()
        .flat_map(|paths| paths.values_mut())
        .filter_map(Value::as_object_mut)
        .flat_map(|item| item.values_mut())
        .filter_map(Value::as_object_mut)
}

/// The documented API gives every parameter a title and an optional one an `anyOf` with null.
fn as_documented_parameter(parameter: &mut Value) {
    let title = title_of(parameter["name"].as_str().unwrap_or_default());
    parameter["schema"] = if parameter["required"] == false {
        json!({ "anyOf": [{ "type": "string" }, { "type": "null" }], "title": title })
    } else {
        json!({ "type": "string", "title": title })
    };
}

/// A 404 has an example and no schema.
fn as_documented_response(response: &mut Value) {
    for media in response["content"].as_object_mut().into_iter().flat_map(|content| content.values_mut()) {
        let has_examples = media.get("examples").is_some();
        if let Some(media) = media.as_object_mut()
            && has_examples
            && media.get("schema") == Some(&json!({}))
        {
            media.remove("schema");
        }
    }
}

/// The documented API gives titles to schemas and their properties, describes only the responses,
/// and knows neither `oneOf` nor integer formats.
fn as_documented_schema(name: &str, schema: &mut Value) {
    schema["title"] = name.into();
    if name.contains("Validation")
        && let Some(schema) = schema.as_object_mut()
    {
        schema.remove("description");
    }
    for (name, property) in schema["properties"].as_object_mut().into_iter().flatten() {
        let Some(property) = property.as_object_mut() else {
            continue;
        };
        property.remove("description");
        property.insert("title".into(), property_title(name).into());
        if let Some(items) = property.get_mut("items").and_then(Value::as_object_mut) {
            items.remove("description");
            if let Some(Value::Array(mut variants)) = items.remove("oneOf") {
                for variant in variants.iter_mut().filter_map(Value::as_object_mut) {
                    variant.retain(|key, _| key == "type");
                }
                items.insert("anyOf".into(), variants.into());
            }
        }
    }
}

/// The abbreviated properties of a validation error have titles of their own.
fn property_title(name: &str) -> String {
    match name {
        "loc" => "Location".to_owned(),
        "msg" => "Message".to_owned(),
        "type" => "Error Type".to_owned(),
        "ctx" => "Context".to_owned(),
        name => title_of(name),
    }
}

/// `directory_path` as `Directory Path`.
fn title_of(name: &str) -> String {
    name.split('_')
        .map(|word| {
            let mut letters = word.chars();
            letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
        })
        .collect::<Vec<_>>()
        .join(" ")
}
