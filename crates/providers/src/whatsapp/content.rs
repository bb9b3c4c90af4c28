//! The content of a WhatsApp message, by its type.

use serde_json::Value;

use crate::json::{others, owned, text};
use domain::{Details, Kind, Media};

/// The kind of a message type.
pub fn kind(provider_kind: &str) -> Kind {
    match provider_kind {
        "contact" => Kind::Contacts,
        "voice" => Kind::Audio,
        // The type of a file in the history arrives later, or never.
        "unknown" | "media_placeholder" => Kind::Unsupported,
        "request_welcome" => Kind::System,
        other => Kind::named(other).unwrap_or(Kind::Unknown),
    }
}

/// Members of a message that have their own fields; `type` names the one with the content. Others are kept.
const READ: &[&str] =
    &["id", "from", "to", "to_user_id", "timestamp", "type", "from_user_id", "group_id", "context", "history_context"];

/// Records the content of the message in `details`; returns its text.
pub fn read(part: &Value, provider_kind: &str, details: &mut Details) -> Option<String> {
    let own = part.get(provider_kind).unwrap_or(&Value::Null);
    read_context(&part["context"], details);
    details.extra.extend(others(part, &[READ, &[provider_kind]].concat()));
    let keep = |details: &mut Details, name: &str| {
        if !own.is_null() {
            details.extra.insert(name.to_owned(), own.clone());
        }
    };
    match details.kind {
        Kind::Text => owned(own, "body").or_else(|| own.get("body").and_then(Value::as_str).map(str::to_owned)),
        Kind::Image | Kind::Video | Kind::Audio | Kind::Document | Kind::Sticker => {
            details.media.push(media(own));
            for flag in ["voice", "animated"].into_iter().filter(|flag| own[*flag] == true) {
                details.extra.insert(flag.to_owned(), true.into());
            }
            owned(own, "caption")
        }
        Kind::Interactive => {
            keep(details, "interactive");
            let sort = text(own, "type").unwrap_or_default();
            let reply = &own[sort];
            owned(reply, "title").or_else(|| owned(reply, "body"))
        }
        Kind::Button => {
            keep(details, "button");
            owned(own, "text")
        }
        Kind::Reaction => {
            if let Some(to) = text(own, "message_id") {
                details.extra.insert("reaction_to".to_owned(), to.into());
            }
            // Without an emoji, or with an empty one, the reaction was removed.
            Some(owned(own, "emoji").unwrap_or_default())
        }
        Kind::Order => {
            keep(details, "order");
            owned(own, "text")
        }
        Kind::System => {
            keep(details, "system");
            owned(own, "body")
        }
        Kind::Edit => {
            keep(details, "edit");
            note_original(own, "edited", details);
            let message = &own["message"];
            let of_file = &message[text(message, "type")?];
            if of_file["id"].is_string() || of_file["url"].is_string() {
                details.media.push(media(of_file));
            }
            owned(&message["text"], "body").or_else(|| owned(of_file, "caption"))
        }
        Kind::Unsupported => {
            keep(details, "unsupported");
            None
        }
        Kind::Revoke => {
            keep(details, "revoke");
            note_original(own, "revoked", details);
            None
        }
        Kind::Location | Kind::Contacts | Kind::Poll | Kind::Unknown => {
            keep(details, details.kind.name());
            None
        }
    }
}

/// The message that was changed or deleted.
fn note_original(own: &Value, name: &str, details: &mut Details) {
    if let Some(original) = text(own, "original_message_id") {
        details.extra.insert(name.to_owned(), original.into());
    }
}

/// The message to which it replies, and its origin.
fn read_context(context: &Value, details: &mut Details) {
    const FLAGS: [&str; 2] = ["forwarded", "frequently_forwarded"];
    details.reply_to = owned(context, "id");
    for flag in FLAGS.into_iter().filter(|flag| context[*flag] == true) {
        details.extra.insert(flag.to_owned(), true.into());
    }
    let mut rest = others(context, &["id", FLAGS[0], FLAGS[1]]);
    if let Some(product) = rest.remove("referred_product") {
        details.extra.insert("referred_product".to_owned(), product);
    }
    if !rest.is_empty() {
        details.extra.insert("context".to_owned(), rest.into());
    }
}

fn media(own: &Value) -> Media {
    Media {
        id: owned(own, "id"),
        url: owned(own, "url").or_else(|| owned(own, "link")),
        mime_type: owned(own, "mime_type"),
        sha256: owned(own, "sha256"),
        file_name: owned(own, "filename"),
        bytes: own.get("file_size").and_then(Value::as_u64),
    }
}
