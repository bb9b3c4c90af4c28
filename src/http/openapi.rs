//! The OpenAPI 3.1 document, generated from the handlers and views. `docs/openapi.json` is its snapshot.

use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{details, docs, health, index, messages, metrics, receive, stats, views};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Postroom",
        description = "The post room for message webhooks: every message is verified at the door, filed exactly once, \
            acknowledged only when it is safe on disk, and found again in milliseconds.",
        license(name = "MIT", identifier = "MIT"),
    ),
    paths(
        receive::receive, receive::receive_at_door, messages::list, details::message, details::statuses, details::events, details::event, stats::summarize, health::live, health::ready, metrics::expose, index::greet,
        docs::openapi, docs::page,
    ),
    components(schemas(views::DetailView, views::InvalidView, views::StatusCountsView)),
    tags(
        (name = "messages", description = "Receiving, listing and counting messages"),
        (name = "operations", description = "For orchestrators and Prometheus"),
        (name = "about", description = "What this is"),
    ),
    modifiers(&Security),
)]
struct Document;

/// Reading may want a token; the door wants a signature, which OpenAPI can only describe as a key in a header.
struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("One of the tokens of API_TOKEN. Not needed while that is unset."))
            .build();
        let signature = ApiKeyValue::with_description(
            "X-Signature",
            "HMAC-SHA256 of the exact body bytes, keyed with WEBHOOK_SECRET, in lower-case hexadecimal (64 digits). It differs \
             from body to body: type the secret at the top of this page, and what you try is signed for you.",
        );
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("signature", SecurityScheme::ApiKey(ApiKey::Header(signature)));
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
    }
}

/// The document as JSON, one line an element, as the snapshot has it.
pub fn document() -> String {
    Document::openapi().to_pretty_json().expect("the document is plain data") + "\n"
}
