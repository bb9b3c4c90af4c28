//! The parameters of a form that says one thing.

use std::collections::BTreeMap;

use serde_json::Value;

use super::header::form;

/// Parameters by name. An empty one says as little as an absent one.
pub struct Fields(BTreeMap<String, String>);

impl Fields {
    /// Reads a form; none if a name comes twice with different values. Where names and values are run together to be signed, a
    /// request that somebody saw can be cut anew in other places. A name that comes twice is a sign of that, and never the
    /// provider's.
    pub fn read(body: &[u8]) -> Option<Self> {
        let mut fields = BTreeMap::new();
        for (name, value) in form(body) {
            let value = value.into_owned();
            let before = fields.insert(name.into_owned(), value.clone());
            if before.is_some_and(|before| before != value) {
                return None;
            }
        }
        Some(Self(fields))
    }

    /// What it says; none if that is nothing.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.given(name).filter(|value| !value.is_empty())
    }

    /// What it says, be it nothing; none if it is absent.
    pub fn given(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// The same as `get`, of one's own.
    pub fn owned(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    /// All that say something.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).filter(|(_, value)| !value.is_empty())
    }

    /// All of them as members of an object.
    pub fn to_value(&self) -> Value {
        self.0.iter().map(|(name, value)| (name.clone(), Value::from(value.clone()))).collect()
    }
}
