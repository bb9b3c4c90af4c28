//! The delivery of a sent message, as WhatsApp reports it.

use serde_json::Value;

use super::reader::{Reader, person};
use crate::Source;
use crate::element;
use crate::element::message_key;
use crate::json::{list, others, scalar, text};
use domain::{Address, Moment, State, StatusUpdate};

/// Parses one element of `statuses`. Payment statuses are in the same list and often have a message's id, but
/// a failed payment says nothing about the delivery of a message: they become events.
pub fn read(reader: &mut Reader<'_>, number: &str, part: &Value) {
    match text(part, "type") {
        Some("payment") => return reader.event("payment", part),
        None if part["payment"].is_object() => return reader.event("payment", part),
        None | Some("message") => {}
        Some(_) => return reader.unreadable("a status of an unknown type", part),
    }
    match status(reader.source, number, part, reader.now) {
        Some(status) => reader.parsed.intake.statuses.push(status),
        None => reader.unreadable("an unknown status", part),
    }
}

/// One status. Those of a group arrive once per participant, or aggregated.
fn status(source: &Source, number: &str, part: &Value, now: Moment) -> Option<StatusUpdate> {
    let id = scalar(part, "id")?;
    let state = match text(part, "status")? {
        "sent" => State::Sent,
        "delivered" => State::Delivered,
        "read" => State::Read,
        "played" => State::Played,
        "failed" => State::Failed,
        _ => return None,
    };
    Some(StatusUpdate {
        message: message_key(source.scheme.kind, number, &id),
        provider_id: id,
        source: source.name.clone(),
        recipient: recipient(part),
        state,
        at: part.get("timestamp").and_then(element::timestamp).unwrap_or_else(|| now.to_timestamp()),
        error: list(part, "errors").first().map(|error| {
            let title = text(error, "title").or_else(|| text(error, "message")).unwrap_or_default();
            format!("{} {title}", scalar(error, "code").unwrap_or_default()).trim().to_owned()
        }),
        extra: others(part, &["id", "status", "timestamp", "type"]),
    })
}

/// A participant of a group if one is named, else the person, else the whole group.
fn recipient(part: &Value) -> Option<Address> {
    let named = |name: &str| text(part, name);
    let of_group = named("recipient_type") == Some("group");
    person(named("recipient_participant_id"), named("recipient_participant_user_id")).or_else(|| {
        match named("recipient_id") {
            Some(group) if of_group => Some(Address::tagged("group", group)),
            number => person(number, named("recipient_user_id")),
        }
    })
}
