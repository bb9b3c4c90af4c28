//! Records of a number that is also used in the WhatsApp Business app (coexistence): messages of the business,
//! the history, and the address book. Postroom's side of the number received none of it, so all of it becomes events.

use serde_json::{Value, json};

use super::reader::{Line, Reader, person, sender};
use crate::json::{list, text};
use domain::{Address, NewMessage};

/// Messages that the business sent by other means.
pub fn read_echoes(reader: &mut Reader<'_>, line: &Line<'_>, field: &str, value: &Value) {
    for part in list(value, "message_echoes") {
        if reader.has_room() {
            let message = line.message(part, line.address(), receiver(part, None), &[]);
            reader.event_with_message(field, message, part);
        }
    }
}

/// The conversations of up to half a year, a thread for each customer. Files of the last weeks follow separately.
pub fn read_history(reader: &mut Reader<'_>, line: &Line<'_>, value: &Value) {
    for chunk in list(value, "history") {
        for thread in list(chunk, "threads") {
            for part in list(thread, "messages") {
                if reader.has_room() {
                    let past = json!({ "status": part["history_context"]["status"], "chunk": chunk["metadata"] });
                    let message = past_message(line, part, text(thread, "id"), &[("history", past)]);
                    reader.event_with_message("history", message, part);
                }
            }
        }
        for error in list(chunk, "errors") {
            if reader.has_room() {
                reader.occurrence(line, "history", error);
            }
        }
    }
    for part in list(value, "messages") {
        if reader.has_room() {
            let message = past_message(line, part, None, &[]);
            reader.event_with_message("history_media", message, part);
        }
    }
}

fn past_message(line: &Line<'_>, part: &Value, thread: Option<&str>, told: &[(&str, Value)]) -> Option<NewMessage> {
    let (from, ours) = (sender(part), line.address());
    match from == ours {
        true => line.message(part, ours, receiver(part, thread), told),
        false => line.message(part, from, ours, told),
    }
}

/// The recipient of a message of the business.
fn receiver(part: &Value, thread: Option<&str>) -> Address {
    person(text(part, "to").or(thread), text(part, "to_user_id")).unwrap_or_else(|| Address::tagged("unknown", ""))
}

/// Changes of the app's address book.
pub fn read_contacts(reader: &mut Reader<'_>, line: &Line<'_>, value: &Value) {
    for part in list(value, "state_sync") {
        if reader.has_room() {
            reader.event("smb_app_state_sync", &json!({ "number": line.number, "entry": part }));
        }
    }
}
