//! WhatsApp's own addresses (JIDs), as the bridges WAHA and Evolution pass them on, and the keys of their messages.

use std::borrow::Cow;

use serde_json::Value;

use super::Source;
use super::element::message_key;
use super::json::text;
use domain::{Address, MessageId};

/// The meaning of the part after the `@`: a person's number, an opaque id that often hides one, a group, a channel.
pub fn address(jid: &str) -> Address {
    let (user, server) = jid.split_once('@').unwrap_or((jid, ""));
    // A device number may follow.
    let person = user.split([':', '.']).next().unwrap_or(user);
    match server {
        // WhatsApp itself sends from this number.
        "c.us" | "s.whatsapp.net" if person == "0" => Address::tagged("jid", jid),
        "c.us" | "s.whatsapp.net" | "hosted" | "" => {
            Address::international(person).unwrap_or_else(|| Address::tagged("jid", jid))
        }
        "lid" | "hosted.lid" => Address::tagged("lid", person),
        "g.us" => Address::tagged("group", user),
        "newsletter" => Address::tagged("newsletter", user),
        _ => Address::tagged("jid", jid),
    }
}

/// Whether it is a group.
pub fn is_group(jid: &str) -> bool {
    jid.ends_with("@g.us")
}

/// Whether only an opaque id is known.
pub fn is_opaque(jid: &str) -> bool {
    jid.ends_with("@lid") || jid.ends_with("@hosted.lid")
}

/// The number in a message's key for an opaque id. The member's name depends on the bridge's version, and the
/// member may be missing. In a group it is the participant's number.
pub fn number_beside(key: &Value, is_group: bool) -> Option<&str> {
    let names: &[&str] = match is_group {
        true => &["participantAlt", "participantPn", "senderPn"],
        false => &["remoteJidAlt", "senderPn", "participantAlt", "participantPn"],
    };
    names.iter().filter_map(|name| text(key, name)).find(|jid| is_number(jid))
}

/// Whether it is a person's number.
pub fn is_number(jid: &str) -> bool {
    jid.ends_with("@s.whatsapp.net") || jid.ends_with("@c.us")
}

/// Whether it is for stories, which have no particular recipient.
pub fn is_broadcast(jid: &str) -> bool {
    jid.ends_with("@broadcast")
}

/// The account of a bridge with several accounts: the bridge's name for it, after the account of the
/// settings, if set. Two bridges may use the same name.
pub fn session_account<'a>(source: &'a Source, session: Option<&'a str>) -> Cow<'a, str> {
    match (source.options.account.as_deref(), session) {
        (Some(account), Some(session)) => format!("{account}/{session}").into(),
        (_, Some(session)) => session.into(),
        (_, None) => source.account().into(),
    }
}

/// The key of earlier versions, which ignored the account of the settings; none if it is the same.
pub fn former_key(source: &Source, session: Option<&str>, key_id: &str) -> Option<Box<MessageId>> {
    source.options.account.as_ref()?;
    Some(Box::new(message_key(source.scheme.kind, session?, key_id)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_number_stands_beside_an_opaque_id_under_several_names() {
        let number = "491511234567@s.whatsapp.net";
        for name in ["remoteJidAlt", "senderPn", "participantAlt"] {
            assert_eq!(number_beside(&json!({ name: number }), false), Some(number), "{name}");
            assert_eq!(number_beside(&json!({ name: "1@lid" }), false), None, "{name}");
        }
        let key = json!({"remoteJidAlt": "15550783881@s.whatsapp.net", "participantAlt": number});
        assert_eq!(number_beside(&key, true), Some(number), "of who spoke in a group");
        assert_eq!(number_beside(&json!({"remoteJidAlt": number}), true), None);
        assert_eq!(number_beside(&Value::Null, false), None);
    }

    #[test]
    fn addresses() {
        let cases = [
            ("4915112345678@c.us", "+4915112345678"),
            ("4915112345678:12@s.whatsapp.net", "+4915112345678"),
            ("123456789012345@lid", "lid:123456789012345"),
            ("123456789012345:7@lid", "lid:123456789012345"),
            ("120363000000000000@g.us", "group:120363000000000000"),
            ("1203@newsletter", "newsletter:1203"),
            ("123456789012345@hosted.lid", "lid:123456789012345"),
            ("status@broadcast", "jid:status@broadcast"),
            ("0@s.whatsapp.net", "jid:0@s.whatsapp.net"),
            ("867051314767696@bot", "jid:867051314767696@bot"),
            ("4915112345678", "+4915112345678"),
            ("", "jid:"),
        ];
        for (jid, expected) in cases {
            assert_eq!(address(jid).as_str(), expected, "{jid}");
        }
        assert!(is_group("1@g.us") && is_opaque("1@lid") && is_broadcast("status@broadcast") && !is_group("1@c.us"));
    }
}
