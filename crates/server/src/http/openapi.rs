//! The OpenAPI 3.1 document: the route table has the paths, and handlers and views describe them (so their
//! attributes leave the path empty). `docs/openapi.json` is its snapshot.

use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::route::Route;
use super::routes::ROUTES;
use super::views;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Postroom",
        description = "An inbox for message webhooks: every message is verified, stored exactly once, \
            acknowledged only when it is safe on disk, and found in milliseconds.",
        license(name = "MIT", identifier = "MIT"),
    ),
    servers((url = ".", description = "The service that serves this document, below any path")),
    components(schemas(views::DetailView, views::InvalidView, views::StatusCountsView)),
    tags(
        (name = "messages", description = "Receiving, listing and counting messages"),
        (name = "operations", description = "For orchestrators and Prometheus"),
        (name = "about", description = "Name and endpoints"),
    ),
    modifiers(&Security),
)]
struct Document;

/// Reading may need a token; the source needs a signature, which OpenAPI can only describe as a key in a header.
struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "A token of API_TOKEN, POSTROOM_API_OPERATOR_TOKEN or POSTROOM_API_ADMIN_TOKEN; the header \
                 X-Postroom-Token takes it too. Not needed for reading while API_TOKEN is unset.",
            ))
            .build();
        let signature = ApiKeyValue::with_description(
            "X-Signature",
            "HMAC-SHA256 of the exact body bytes, keyed with WEBHOOK_SECRET, in lower-case hexadecimal (64 digits). It differs \
             with each body: type the secret at the top of this page, and your browser signs the requests that you try.",
        );
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("signature", SecurityScheme::ApiKey(ApiKey::Header(signature)));
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}

/// The document as JSON, one element per line, in the form of the snapshot.
pub fn document() -> String {
    let mut document = Document::openapi();
    ROUTES.iter().for_each(|route| describe(&mut document, route));
    document.to_pretty_json().expect("the document is plain data") + "\n"
}

/// Adds what a row's handler says of itself, under the path of the row.
fn describe(document: &mut utoipa::openapi::OpenApi, route: &Route) {
    let Some(operation) = route.operation else { return };
    let described = operation();
    let item = document.paths.paths.entry(route.path.text.to_owned()).or_default();
    described.paths.paths.into_values().for_each(|operations| item.merge_operations(operations));
    let schemas = described.components.into_iter().flat_map(|components| components.schemas);
    document.components.get_or_insert_default().schemas.extend(schemas);
}
