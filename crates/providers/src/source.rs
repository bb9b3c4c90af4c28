//! The work of a source: it verifies the raw bytes of a request, and parses the verified body.

use bytes::Bytes;
use http::HeaderMap;

use super::parsed::{Challenge, InvalidBody, Parsed};
use super::request::Request;
use super::scheme::{Parse, Source};
use super::signature::{BadHandshake, BadSignature};
use super::verified::VerifiedBody;
use super::{element, original, redact};
use domain::payload::{PayloadRow, StoredPayload};
use domain::{Event, Intake, Moment, Payload};

impl Source {
    /// Verifies the signature over the raw body.
    pub fn verify(&self, request: &Request<'_>, body: Bytes, now: Moment) -> Result<VerifiedBody, BadSignature> {
        let request = Request { base_url: self.options.base_url.as_deref().or(request.base_url), ..*request };
        let key = (self.scheme.verify)(self, &request, now)?;
        if let Some(key) = self.keys.get(key) {
            key.used(now);
        }
        let own = self.options.rule.as_ref().and_then(|rule| rule.id_header.as_deref());
        let kept = self.scheme.kept_headers.iter().copied().chain(own).filter_map(|name| {
            let value = request.headers.get(name)?.to_str().ok()?;
            Some((name.to_owned(), value.to_owned()))
        });
        Ok(VerifiedBody::new(body, kept.collect()))
    }

    /// Parses the messages of a verified body. `now` is the time of acceptance. Only sources of the original kind
    /// refuse content. At other sources, unknown content becomes an event, and the raw bytes are kept.
    pub fn parse(&self, body: &VerifiedBody, now: Moment) -> Result<Parsed, InvalidBody> {
        let mut parsed = match self.scheme.parse {
            Parse::Bytes(parse) => parse(self, body, now)?,
            Parse::Json(parse) => match element::read_json(self, body, now) {
                Ok(value) => parse(self, &value, now),
                Err(unreadable) => *unreadable,
            },
        };
        if self.keeps_payload() {
            if parsed.is_cut {
                let why = "more than 10000 elements in one body";
                parsed.intake.events.push(element::unreadable_body(self, body.as_bytes(), why, now));
            }
            if parsed.intake.is_empty() && parsed.challenge.is_none() {
                let why = "it contains no known member";
                parsed.intake.events.push(element::unreadable_body(self, body.as_bytes(), why, now));
            }
            parsed.intake.payload = Some(self.payload(body));
            self.redact_events(&mut parsed.intake.events);
        }
        Ok(parsed)
    }

    /// The raw body in its stored form.
    fn payload(&self, body: &VerifiedBody) -> Payload {
        let redacted = self.redact(body.as_bytes());
        Payload {
            source: self.name.clone(),
            provider: self.scheme.kind,
            redacted: redacted.is_some(),
            bytes: redacted.map_or_else(|| body.bytes().clone(), Bytes::from),
            headers: body.headers().to_vec(),
        }
    }

    /// The bytes of a body without the secrets that this provider includes; none if there are no secrets. Stored
    /// bodies and parts of them are always redacted in this way.
    pub fn redact(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        redact::redact(bytes, self.scheme.secret_members)
    }

    fn redact_events(&self, events: &mut [Event]) {
        for body in events.iter_mut().filter_map(|event| event.body.as_mut()) {
            if let Some(redacted) = self.redact(body.as_bytes()) {
                *body = String::from_utf8(redacted).expect("only whole members of a text were replaced");
            }
        }
    }

    /// Whether raw bodies of this source are kept. Those of the original source add nothing to the table.
    pub fn keeps_payload(&self) -> bool {
        self.scheme.kind != original::SCHEME.kind
    }

    /// The result for a body whose parser failed completely: one event, to be parsed again after an upgrade.
    pub fn unreadable(&self, body: &VerifiedBody, why: &str, now: Moment) -> Parsed {
        let events = vec![element::unreadable_body(self, body.as_bytes(), why, now)];
        Intake { events, payload: Some(self.payload(body)), ..Intake::default() }.into()
    }

    /// Restores a verified body from a stored one: its signature was verified on receipt.
    pub fn reopen(&self, stored: StoredPayload) -> VerifiedBody {
        let PayloadRow { bytes, headers, .. } = stored.into_row();
        VerifiedBody::new(bytes.into(), headers)
    }

    /// Handles a GET with which the provider checks the ownership of the source; none if it never sends one.
    pub fn handshake(&self, query: &str) -> Option<Result<Challenge, BadHandshake>> {
        self.scheme.handshake.map(|handshake| handshake(self, query))
    }

    /// The headers with which the provider would prove this request. None if only the provider can create them.
    pub fn sign(&self, request: &Request<'_>, id: &str, now: Moment) -> Option<HeaderMap> {
        let request = Request { base_url: self.options.base_url.as_deref().or(request.base_url), ..*request };
        self.scheme.sign?(self, &request, id, now)
    }
}
