//! Providers that are only data: a signature scheme, and the fields of a message.

use std::borrow::Cow;

use super::algorithm::Algorithm;
use super::element;
use super::encoding::Encoding;
use super::fields::{Fields, is_form};
use super::header::{TOLERANCE_SECONDS, TimeUnit};
use super::json::{read, text as text_of};
use super::rule::{List, Part, Proof, Time, TimePlace};
use super::{Parse, Parsed, Rule, Scheme, Source, text, whatsapp};
use domain::{Intake, Moment};

/// 360dialog passes on Meta's envelope with its own signature (partners only; others get a static header, for which
/// `algorithm = "static"` exists). Meta's own header is not passed on. The prefix may be absent.
pub const DIALOG360: Scheme = Scheme {
    kind: "360dialog",
    title: "360dialog (WhatsApp)",
    rule: Some(Rule {
        header: text("x-360dialog-signature"),
        prefix: text("sha256="),
        prefix_optional: true,
        list: None,
        proof: Proof::Signature {
            algorithm: Algorithm::HmacSha256,
            encoding: Encoding::Hex,
            template: Cow::Borrowed(&[Part::Body]),
        },
        time: None,
        id_header: None,
    }),
    parse: Parse::Json(whatsapp::parse),
    ..Scheme::BASE
};

/// GitHub sends no messages; its deliveries are events under their own ids. Webhooks with the default content type
/// contain the same JSON in a form.
pub const GITHUB: Scheme = Scheme {
    kind: "github",
    title: "GitHub",
    rule: Some(Rule::of_body("x-hub-signature-256", "sha256=", Algorithm::HmacSha256, Encoding::Hex)),
    kept_headers: &["x-github-event", "x-github-delivery"],
    parse: Parse::Bytes(|source, body, now| {
        let (kind, id) = (body.header("x-github-event"), body.header("x-github-delivery"));
        let payload = is_form(body.as_bytes()).then(|| Fields::read(body.as_bytes()).owned("payload")).flatten();
        Ok(match payload {
            Some(payload) => events(source, payload.as_bytes(), kind, id, now),
            None => events(source, body.as_bytes(), kind, id, now),
        })
    }),
    ..Scheme::BASE
};

const STRIPE_TEMPLATE: &[Part] = &[Part::Timestamp, Part::Text(text(".")), Part::Body];

/// Stripe, and providers with the same scheme. The whole secret is the key, including `whsec_`; `v0` is ignored.
pub const STRIPE: Scheme = Scheme {
    kind: "stripe",
    title: "Stripe",
    rule: Some(Rule {
        header: text("stripe-signature"),
        prefix: text(""),
        prefix_optional: false,
        list: Some(List { separator: ',', label: Some(('=', text("v1"))), more_labels: Vec::new() }),
        proof: Proof::Signature {
            algorithm: Algorithm::HmacSha256,
            encoding: Encoding::Hex,
            template: Cow::Borrowed(STRIPE_TEMPLATE),
        },
        time: Some(Time {
            place: TimePlace::Label(text("t")),
            unit: TimeUnit::Seconds,
            tolerance_seconds: TOLERANCE_SECONDS,
        }),
        id_header: None,
    }),
    parse: Parse::Bytes(|source, body, now| Ok(events(source, body.as_bytes(), None, None, now))),
    ..Scheme::BASE
};

/// JSON as one event, with kind and id from headers, or else from the body.
fn events(source: &Source, json: &[u8], kind: Option<&str>, id: Option<&str>, now: Moment) -> Parsed {
    let event = match read(json) {
        Ok(value) => {
            let kind = kind.or_else(|| text_of(&value, "type")).unwrap_or("event");
            element::event(source, kind, id.or_else(|| text_of(&value, "id")), &value, now)
        }
        Err(why) => element::unreadable_body(source, json, &why, now),
    };
    Intake { events: vec![event], ..Intake::default() }.into()
}
