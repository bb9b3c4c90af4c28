//! Signature schemes and field mappings in the settings file, for the generic provider and for providers with small
//! differences.

use std::borrow::Cow;

use toml::{Table, Value};

use super::ConfigError;
use providers::Scheme;
use providers::algorithm::Algorithm;
use providers::encoding::Encoding;
use providers::header::{TOLERANCE_SECONDS, TimeUnit};
use providers::mapping::{Mapping, NOTHING_MAPPED};
use providers::rule::{List, Part, Proof, Rule, Text, Time, TimePlace};

/// Creates an error about a key of the file.
type Complain<'a> = &'a dyn Fn(&str, &str) -> ConfigError;

/// Keys of the signature scheme.
const RULE_KEYS: &[&str] = &[
    "signature_header",
    "prefix",
    "list_separator",
    "label_separator",
    "label",
    "algorithm",
    "encoding",
    "template",
    "body_claim",
    "timestamp_header",
    "timestamp_label",
    "timestamp_unit",
    "tolerance_seconds",
    "id_header",
];
/// Keys of the fields of a message.
const MAPPING_KEYS: &[&str] = &["format", "fields"];
const FIELDS: &[&str] = &[
    "messages",
    "when",
    "equals",
    "id",
    "from",
    "to",
    "time",
    "text",
    "kind",
    "account",
    "reply_to",
    "profile_name",
    "group",
    "media_url",
    "media_type",
];

/// The keys that a source of this protocol may have in addition to those of every source.
pub fn keys(scheme: &Scheme) -> impl Iterator<Item = &'static str> + use<> {
    let rule = if scheme.rule.is_some() || scheme.is_generic() { RULE_KEYS } else { &[] };
    let mapping = if scheme.is_generic() { MAPPING_KEYS } else { &[] };
    rule.iter().chain(mapping).copied()
}

/// The scheme of the table: the protocol's, with the given changes. None if there are none.
pub fn rule(table: &Table, scheme: &Scheme, complain: Complain<'_>) -> Result<Option<Rule>, ConfigError> {
    let said = RULE_KEYS.iter().any(|key| table.contains_key(*key));
    if !said && !scheme.is_generic() {
        return Ok(None);
    }
    let reader = Reader { table, complain };
    let bare = |header| Rule { header, ..Rule::of_body("", "", Algorithm::HmacSha256, Encoding::Hex) };
    let shows_secret = matches!(reader.text("algorithm")?.as_deref(), Some("static" | "jwt-hs256"));
    let mut rule = match &scheme.rule {
        // A static secret has no prefix of the provider around it, and signs no text besides the body.
        Some(rule) if shows_secret => bare(rule.header.clone()),
        Some(rule) => rule.clone(),
        None => bare(reader.text("signature_header")?.ok_or_else(|| complain("signature_header", "is not set"))?),
    };
    if let Some(header) = reader.text("signature_header")? {
        rule.header = header.to_ascii_lowercase().into();
    }
    if let Some(prefix) = reader.text("prefix")? {
        rule.prefix = prefix;
        rule.prefix_optional = false;
    }
    if let Some(header) = reader.text("id_header")? {
        rule.id_header = Some(header.to_ascii_lowercase().into());
    }
    reader.list(&mut rule)?;
    reader.proof(&mut rule)?;
    reader.time(&mut rule)?;
    Ok(Some(rule))
}

/// The fields of a message. None for protocols that define them.
pub fn mapping(table: &Table, scheme: &Scheme, complain: Complain<'_>) -> Result<Option<Mapping>, ConfigError> {
    if !scheme.is_generic() {
        return Ok(None);
    }
    let reader = Reader { table, complain };
    let is_form = match reader.text("format")?.as_deref() {
        None | Some("json") => false,
        Some("form") => true,
        Some(_) => return Err(complain("format", "must be json or form")),
    };
    let mut mapping = Mapping { is_form, ..NOTHING_MAPPED };
    let Some(fields) = table.get("fields") else { return Ok(Some(mapping)) };
    let fields = fields.as_table().ok_or_else(|| complain("fields", "must be a table of JSON pointers"))?;
    for (name, value) in fields {
        let pointer = value.as_str().ok_or_else(|| complain("fields", "must contain only texts"))?;
        if name != "equals" && !(pointer.is_empty() || pointer.starts_with('/')) {
            let problem =
                format!("has '{pointer}' for {name}, which is not a JSON pointer: JSON pointers begin with /");
            return Err(complain("fields", &problem));
        }
        let place = match name.as_str() {
            "messages" => &mut mapping.messages,
            "when" => &mut mapping.when,
            "equals" => &mut mapping.equals,
            "id" => &mut mapping.id,
            "from" => &mut mapping.from,
            "to" => &mut mapping.to,
            "time" => &mut mapping.time,
            "text" => &mut mapping.text,
            "kind" => &mut mapping.kind,
            "account" => &mut mapping.account,
            "reply_to" => &mut mapping.reply_to,
            "profile_name" => &mut mapping.profile_name,
            "group" => &mut mapping.group,
            "media_url" => &mut mapping.media_url,
            "media_type" => &mut mapping.media_type,
            _ => {
                let meant = super::settings::nearest(name, FIELDS.iter().copied());
                let meant = meant.map(|field| format!("; did you mean {field}?")).unwrap_or_default();
                return Err(complain("fields", &format!("has no field '{name}'{meant}")));
            }
        };
        *place = Some(Cow::Owned(pointer.to_owned()));
    }
    Ok(Some(mapping))
}

/// Reads keys of one table.
struct Reader<'a> {
    table: &'a Table,
    complain: Complain<'a>,
}

impl Reader<'_> {
    fn text(&self, key: &str) -> Result<Option<Text>, ConfigError> {
        match self.table.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(Cow::Owned(text.clone()))),
            Some(_) => Err((self.complain)(key, "must be a text")),
        }
    }

    /// A text, or a list of texts.
    fn texts(&self, key: &str) -> Result<Vec<Text>, ConfigError> {
        let Some(Value::Array(list)) = self.table.get(key) else { return Ok(self.text(key)?.into_iter().collect()) };
        let texts = list.iter().map(|value| value.as_str().filter(|text| !text.is_empty()));
        let texts: Option<Vec<_>> = texts.map(|text| Some(Cow::Owned(text?.to_owned()))).collect();
        texts.ok_or_else(|| (self.complain)(key, "must be a text or a list of texts"))
    }

    /// A single ASCII character.
    fn separator(&self, key: &str) -> Result<Option<char>, ConfigError> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        match text.as_bytes() {
            [byte] if byte.is_ascii() => Ok(Some(char::from(*byte))),
            _ => Err((self.complain)(key, "must be one ASCII character")),
        }
    }

    fn list(&self, rule: &mut Rule) -> Result<(), ConfigError> {
        let before = rule.list.take();
        let separator = self.separator("list_separator")?.or(before.as_ref().map(|list| list.separator));
        let equals = self.separator("label_separator")?;
        let mut labels = self.texts("label")?.into_iter();
        let label = match (labels.next(), before.and_then(|list| list.label)) {
            (Some(label), before) => Some((equals.or(before.map(|(equals, _)| equals)).unwrap_or('='), label)),
            (None, Some((before, label))) => Some((equals.unwrap_or(before), label)),
            (None, None) => None,
        };
        rule.list = separator.map(|separator| List { separator, label: label.clone(), more_labels: labels.collect() });
        if rule.list.is_none() && label.is_some() {
            return Err((self.complain)("label", "needs a list_separator"));
        }
        Ok(())
    }

    fn proof(&self, rule: &mut Rule) -> Result<(), ConfigError> {
        let body_claim = self.text("body_claim")?;
        let (mut algorithm, mut encoding, mut template) = match rule.proof.clone() {
            Proof::Signature { algorithm, encoding, template } => (Some(algorithm), encoding, template),
            Proof::Secret | Proof::Token { .. } => (None, Encoding::Hex, Cow::Borrowed(&[Part::Body][..])),
        };
        let algorithm_name = self.text("algorithm")?;
        let is_token = algorithm_name.as_deref() == Some("jwt-hs256");
        if body_claim.is_some() && !is_token {
            return Err((self.complain)("body_claim", "needs algorithm = \"jwt-hs256\""));
        }
        if let Some(name) = algorithm_name {
            algorithm = match name.as_ref() {
                "hmac-sha1" => Some(Algorithm::HmacSha1),
                "hmac-sha256" => Some(Algorithm::HmacSha256),
                "hmac-sha384" => Some(Algorithm::HmacSha384),
                "hmac-sha512" => Some(Algorithm::HmacSha512),
                "ed25519" => Some(Algorithm::Ed25519),
                "static" | "jwt-hs256" => None,
                _ => {
                    let known =
                        "must be hmac-sha1, hmac-sha256, hmac-sha384, hmac-sha512, ed25519, jwt-hs256 or static";
                    return Err((self.complain)("algorithm", known));
                }
            };
        }
        if let Some(name) = self.text("encoding")? {
            encoding = match name.as_ref() {
                "hex" => Encoding::Hex,
                "base64" => Encoding::Base64,
                _ => return Err((self.complain)("encoding", "must be hex or base64")),
            };
        }
        if let Some(text) = self.text("template")? {
            template = Cow::Owned(self.template(&text)?);
        }
        let needs = |part: &Part| template.contains(part);
        if needs(&Part::Id) && rule.id_header.is_none() {
            return Err((self.complain)("id_header", "must be set, since the template contains {id}"));
        }
        rule.proof = match algorithm {
            Some(algorithm) => Proof::Signature { algorithm, encoding, template },
            None if is_token => Proof::Token { body_claim },
            None => Proof::Secret,
        };
        Ok(())
    }

    /// `{body}`, `{timestamp}`, `{id}`, `{url}`, `{sorted_form}`, `{sha256_body_raw}`, `{header:NAME}` between text.
    fn template(&self, text: &str) -> Result<Vec<Part>, ConfigError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            let (before, placeholder) = rest.split_at(at);
            let (name, after) =
                placeholder[1..].split_once('}').ok_or_else(|| (self.complain)("template", "has a { without a }"))?;
            if !before.is_empty() {
                parts.push(Part::Text(Cow::Owned(before.to_owned())));
            }
            parts.push(match (name, name.strip_prefix("header:")) {
                ("body", _) => Part::Body,
                ("timestamp", _) => Part::Timestamp,
                ("id", _) => Part::Id,
                ("url", _) => Part::Url,
                ("sorted_form", _) => Part::SortedForm,
                ("sha256_body_raw", _) => Part::BodySha256,
                (_, Some(header)) => Part::Header(Cow::Owned(header.to_ascii_lowercase())),
                _ => return Err((self.complain)("template", &format!("has no placeholder {{{name}}}"))),
            });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(Cow::Owned(rest.to_owned())));
        }
        let covers = [Part::Body, Part::SortedForm, Part::BodySha256].iter().any(|part| parts.contains(part));
        // A signature that does not cover the body would let anyone who saw one request create others.
        if covers { Ok(parts) } else { Err((self.complain)("template", "must contain the body in some form")) }
    }

    fn time(&self, rule: &mut Rule) -> Result<(), ConfigError> {
        let place = match (self.text("timestamp_header")?, self.text("timestamp_label")?) {
            (Some(_), Some(_)) => {
                return Err((self.complain)("timestamp_label", "is set, and timestamp_header too; keep one of them"));
            }
            (Some(header), None) => Some(TimePlace::Header(Cow::Owned(header.to_ascii_lowercase()))),
            (None, Some(label)) => Some(TimePlace::Label(label)),
            (None, None) => None,
        };
        if let Some(place) = place {
            rule.time = Some(Time { place, unit: TimeUnit::Seconds, tolerance_seconds: TOLERANCE_SECONDS });
        }
        let unit = match self.text("timestamp_unit")?.as_deref() {
            None => None,
            Some("s") => Some(TimeUnit::Seconds),
            Some("ms") => Some(TimeUnit::Milliseconds),
            Some(_) => return Err((self.complain)("timestamp_unit", "must be s or ms")),
        };
        let tolerance = match self.table.get("tolerance_seconds") {
            None => None,
            Some(Value::Integer(seconds)) if (1..=86_400).contains(seconds) => Some(*seconds as u32),
            Some(_) => return Err((self.complain)("tolerance_seconds", "must be a whole number from 1 to 86400")),
        };
        let uses = matches!(&rule.proof, Proof::Signature { template, .. } if template.contains(&Part::Timestamp));
        match &mut rule.time {
            Some(time) => {
                time.unit = unit.unwrap_or(time.unit);
                time.tolerance_seconds = tolerance.unwrap_or(time.tolerance_seconds);
                // A time that is not signed could be changed in a replayed request.
                if !uses {
                    return Err((self.complain)(
                        "template",
                        "must contain {timestamp}, because a timestamp is configured",
                    ));
                }
            }
            None if uses => return Err((self.complain)("timestamp_header", "or timestamp_label must be set")),
            None => {}
        }
        Ok(())
    }
}
