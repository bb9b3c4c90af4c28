//! Views of a body or query that breaks the rules, in the form of FastAPI (pydantic 2).

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use domain::invalid::Place;
use domain::{FieldError, Invalid};

/// All errors of a body or a query, in the shape of FastAPI (pydantic 2).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Invalid)]
pub struct InvalidView {
    /// One entry per refused value.
    pub detail: Vec<InvalidFieldView>,
}

/// One refused value.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = InvalidField)]
pub struct InvalidFieldView {
    /// The kind of error.
    #[serde(rename = "type")]
    #[schema(example = "missing")]
    pub kind: &'static str,
    /// Where the value stood.
    #[schema(example = json!(["body", "message_id"]))]
    pub loc: Vec<&'static str>,
    /// The error in words.
    #[schema(example = "Field required")]
    pub msg: String,
    /// The received value.
    pub input: Value,
    /// The numbers of the message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctx: Option<Value>,
}

impl InvalidView {
    /// The errors in the form of the API.
    pub fn new(errors: &[FieldError]) -> Self {
        Self { detail: errors.iter().map(InvalidFieldView::new).collect() }
    }
}

impl InvalidFieldView {
    fn new(error: &FieldError) -> Self {
        let loc = match error.place {
            Place::Body => vec!["body"],
            Place::BodyField(name) => vec!["body", name],
            Place::QueryParameter(name) => vec!["query", name],
        };
        let (kind, msg, ctx) = words(&error.invalid);
        Self { kind, loc, msg, input: error.input.clone(), ctx }
    }
}

/// pydantic's type, message and context of an error.
fn words(invalid: &Invalid) -> (&'static str, String, Option<Value>) {
    match invalid {
        Invalid::Missing => ("missing", "Field required".to_owned(), None),
        Invalid::NotAString => ("string_type", "Input should be a valid string".to_owned(), None),
        Invalid::TooShort { least } => {
            let plural = if *least == 1 { "" } else { "s" };
            let msg = format!("String should have at least {least} character{plural}");
            ("string_too_short", msg, Some(json!({ "min_length": least })))
        }
        Invalid::TooLong { most, unit } => {
            let msg = format!("String should have at most {most} {unit}");
            ("string_too_long", msg, Some(json!({ "max_length": most })))
        }
        Invalid::Rule(rule) => ("value_error", format!("Value error, {rule}"), Some(json!({ "error": {} }))),
        Invalid::NotJson(why) => ("json_invalid", format!("Invalid JSON: {why}"), Some(json!({ "error": why }))),
        Invalid::NotAnObject => {
            let msg = "Input should be a valid dictionary or object to extract fields from";
            ("model_attributes_type", msg.to_owned(), None)
        }
        Invalid::NotAnInteger => {
            let msg = "Input should be a valid integer, unable to parse string as an integer";
            ("int_parsing", msg.to_owned(), None)
        }
        Invalid::Below(least) => {
            let msg = format!("Input should be greater than or equal to {least}");
            ("greater_than_equal", msg, Some(json!({ "ge": least })))
        }
        Invalid::Above(most) => {
            let msg = format!("Input should be less than or equal to {most}");
            ("less_than_equal", msg, Some(json!({ "le": most })))
        }
    }
}
