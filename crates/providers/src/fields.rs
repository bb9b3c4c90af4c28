//! The parameters of a form with one record.

use std::collections::BTreeMap;

use serde_json::Value;

use super::header::form;

/// Whether a body is a form. A form begins with a name, JSON with a bracket. The content type may be missing.
pub fn is_form(body: &[u8]) -> bool {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii_start();
    matches!(body.first(), Some(first) if first.is_ascii_alphabetic()) && body.contains(&b'=')
}

/// Parameters by name, each with all its distinct values. An empty parameter counts as absent.
pub struct Fields(BTreeMap<String, Vec<String>>);

impl Fields {
    /// Parses a form.
    pub fn read(body: &[u8]) -> Self {
        let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in form(body) {
            let values = fields.entry(name.into_owned()).or_default();
            if !values.iter().any(|known| *known == value) {
                values.push(value.into_owned());
            }
        }
        Self(fields)
    }

    /// The first of these names that has different values. If names and values are concatenated before signing,
    /// a recorded request can be split differently, so parameters that identify message, parties or content must
    /// have only one value. Providers repeat other names too, which is harmless.
    pub fn contradictory<'a>(&self, names: &[&'a str]) -> Option<&'a str> {
        names.iter().copied().find(|name| self.all(name).len() > 1)
    }

    /// The value, or the first of several; none if it is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.given(name).filter(|value| !value.is_empty())
    }

    /// The value, or the first of several, even if empty; none if it is absent.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.all(name).first().map(String::as_str)
    }

    /// All different values.
    pub fn all(&self, name: &str) -> &[String] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The same as `get`, owned.
    pub fn owned(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    /// All of them as members of an object.
    pub fn to_value(&self) -> Value {
        self.0.iter().map(|(name, values)| (name.clone(), one_or_all(values))).collect()
    }

    /// The non-empty parameters for which `is_kept` is true, as members of an object. JSON in a text is parsed.
    pub fn to_extra(&self, is_kept: impl Fn(&str) -> bool) -> impl Iterator<Item = (String, Value)> {
        let kept = self.0.iter().filter(move |(name, values)| is_kept(name) && values.iter().any(|v| !v.is_empty()));
        kept.map(|(name, values)| {
            let object = values.first().filter(|value| value.starts_with('{') && values.len() == 1);
            let object = object.and_then(|value| super::json::read(value.as_bytes()).ok());
            (name.clone(), object.unwrap_or_else(|| one_or_all(values)))
        })
    }
}

fn one_or_all(values: &[String]) -> Value {
    match values {
        [value] => value.clone().into(),
        values => values.to_vec().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_name_may_come_twice() {
        let fields = Fields::read(b"a=1&b=&a=2&a=1&c=x&c=x");
        assert_eq!((fields.get("a"), fields.all("a").len()), (Some("1"), 2));
        assert_eq!((fields.get("b"), fields.given("b"), fields.given("d")), (None, Some(""), None));
        assert_eq!(fields.contradictory(&["d", "c", "a"]), Some("a"));
        assert_eq!(fields.contradictory(&["b", "c"]), None, "the same value twice is one value");
        assert_eq!(fields.to_value(), json!({"a": ["1", "2"], "b": "", "c": "x"}));
        let extra: Value =
            Fields::read(b"a=%7B%22x%22%3A1%7D&b=%7B&c=&d=1&d=2&e=1").to_extra(|name| name != "e").collect();
        assert_eq!(extra, json!({"a": {"x": 1}, "b": "{", "d": ["1", "2"]}));
    }

    #[test]
    fn forms_are_told_from_json() {
        for form in ["payload=%7B%7D", "\u{feff} a=", "token=x&y"] {
            assert!(is_form(form.as_bytes()), "{form}");
        }
        for other in ["{\"a\":\"=\"}", " [1]", "", "null", "\"a=b\""] {
            assert!(!is_form(other.as_bytes()), "{other}");
        }
    }
}
