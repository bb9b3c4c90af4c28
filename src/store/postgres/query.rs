//! A statement with its values, put together piece by piece.

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, RowStream};

use super::failure::Failure;
use super::places::Place;
use crate::domain::{Filter, ORIGINAL_SOURCE, PLAIN_KIND};

/// SQL text and the values of its parameters, in order.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub text: String,
    values: Vec<Value>,
}

/// A value of a parameter.
#[derive(Debug)]
pub(super) enum Value {
    Text(String),
    Number(i64),
    Bytes(Vec<u8>),
    Numbers(Vec<i64>),
    Places(Vec<Place>),
}

impl Query {
    /// Adds a value and answers its place in the text.
    pub fn bind(&mut self, value: Value) -> String {
        self.values.push(value);
        format!("${}", self.values.len())
    }

    /// As `bind`, for text, which must not hold NUL.
    pub fn bind_text(&mut self, text: &str) -> String {
        self.bind(Value::Text(text.to_owned()))
    }

    /// The parts of a filter that are about columns of `m`, each with ` AND ` in front.
    pub fn columns(&mut self, filter: &Filter) -> String {
        self.columns_beside("m", filter)
    }

    /// The same, where the sender and the time are columns of `beside`.
    pub fn columns_beside(&mut self, beside: &str, filter: &Filter) -> String {
        let mut terms = String::new();
        if let Some(from) = &filter.from {
            terms = format!("{terms} AND {beside}.from_msisdn = {}", self.bind_text(from));
        }
        if let Some(since) = &filter.since {
            terms = format!("{terms} AND {beside}.ts >= {}", self.bind_text(since.as_str()));
        }
        if let Some(to) = &filter.to {
            terms = format!("{terms} AND m.to_msisdn = {}", self.bind_text(to));
        }
        if let Some(until) = &filter.until {
            terms = format!("{terms} AND {beside}.ts < {}", self.bind_text(until.as_str()));
        }
        if let Some(source) = &filter.source {
            terms.push_str(&self.detail("source", source, ORIGINAL_SOURCE));
        }
        if let Some(kind) = filter.kind {
            terms.push_str(&self.detail("kind", kind.name(), PLAIN_KIND.name()));
        }
        terms
    }

    /// That a detail has a value. Said so that the server can join: a message without details has the value of messages of the
    /// original door.
    fn detail(&mut self, column: &str, value: &str, value_without: &str) -> String {
        let (quantifier, relation) = if value == value_without { ("NOT EXISTS", "<>") } else { ("EXISTS", "=") };
        let value = self.bind_text(value);
        format!(
            " AND {quantifier} (SELECT 1 FROM postroom_details d
                                WHERE d.message_id = m.message_id AND d.{column} {relation} {value})"
        )
    }

    /// The values, as the client takes them.
    pub fn parameters(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.values.iter().map(Value::typed).collect()
    }

    pub async fn rows(&self, client: &Client) -> Result<Vec<Row>, Failure> {
        Ok(client.query_typed(&self.text, &self.parameters()).await?)
    }

    /// The rows, one after the other as they come.
    pub async fn stream(&self, client: &Client) -> Result<RowStream, Failure> {
        Ok(client.query_typed_raw(&self.text, self.parameters()).await?)
    }

    /// The one number that the statement answers.
    pub async fn number(&self, client: &Client) -> Result<u64, Failure> {
        let row = client.query_typed_one(&self.text, &self.parameters()).await?;
        Ok(u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
    }
}

impl Value {
    fn typed(&self) -> (&(dyn ToSql + Sync), Type) {
        match self {
            Self::Text(text) => (text, Type::TEXT),
            Self::Number(number) => (number, Type::INT8),
            Self::Bytes(bytes) => (bytes, Type::BYTEA),
            Self::Numbers(numbers) => (numbers, Type::INT8_ARRAY),
            Self::Places(places) => (places, Type::TID_ARRAY),
        }
    }
}
