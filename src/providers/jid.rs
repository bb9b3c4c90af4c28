//! WhatsApp's own addresses (JIDs), as the bridges WAHA and Evolution pass them on.

use crate::domain::Address;

/// What the part behind the `@` says: a person's number, an opaque id that often hides one, a group, a channel.
pub fn address(jid: &str) -> Address {
    let (user, server) = jid.split_once('@').unwrap_or((jid, ""));
    // A device of the person may be appended.
    let person = user.split([':', '.']).next().unwrap_or(user);
    match server {
        "c.us" | "s.whatsapp.net" | "" => Address::international(person).unwrap_or_else(|| Address::tagged("jid", jid)),
        "lid" => Address::tagged("lid", person),
        "g.us" => Address::tagged("group", user),
        "newsletter" => Address::tagged("newsletter", user),
        _ => Address::tagged("jid", jid),
    }
}

/// Whether it is a group's.
pub fn is_group(jid: &str) -> bool {
    jid.ends_with("@g.us")
}

/// Whether only an opaque id is known.
pub fn is_opaque(jid: &str) -> bool {
    jid.ends_with("@lid")
}

/// Whether it stands for stories, which are sent to nobody in particular.
pub fn is_broadcast(jid: &str) -> bool {
    jid.ends_with("@broadcast")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let cases = [
            ("4915112345678@c.us", "+4915112345678"),
            ("4915112345678:12@s.whatsapp.net", "+4915112345678"),
            ("123456789012345@lid", "lid:123456789012345"),
            ("123456789012345:7@lid", "lid:123456789012345"),
            ("120363000000000000@g.us", "group:120363000000000000"),
            ("1203@newsletter", "newsletter:1203"),
            ("status@broadcast", "jid:status@broadcast"),
            ("4915112345678", "+4915112345678"),
            ("", "jid:"),
        ];
        for (jid, expected) in cases {
            assert_eq!(address(jid).as_str(), expected, "{jid}");
        }
        assert!(is_group("1@g.us") && is_opaque("1@lid") && is_broadcast("status@broadcast") && !is_group("1@c.us"));
    }
}
