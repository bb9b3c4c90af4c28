//! Building a statement with its values, piece by piece.

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, RowStream};

use super::failure::Failure;
use super::parameters::Parameters;
use domain::{Filter, ORIGINAL_SOURCE, PLAIN_KIND};

/// SQL text and the values of its parameters, in order.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub text: String,
    values: Parameters<'static>,
}

impl Query {
    /// Adds a value and returns its name in the text.
    pub fn bind(&mut self, value: impl ToSql + Sync + Send + 'static, kind: Type) -> String {
        self.values.push(value, kind);
        format!("${}", self.values.len())
    }

    /// Like `bind`, for text, which must not contain NUL.
    pub fn bind_text(&mut self, text: &str) -> String {
        self.bind(text.to_owned(), Type::TEXT)
    }

    pub fn bind_number(&mut self, number: i64) -> String {
        self.bind(number, Type::INT8)
    }

    /// The parts of a filter on columns of `m`, each prefixed with ` AND `.
    pub fn columns(&mut self, filter: &Filter) -> String {
        self.columns_beside("m", filter)
    }

    /// The same, with the sender and the time as columns of `beside`.
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

    /// The condition that a detail has a value, in a form that the server can join:
    /// a message without details has the value of messages of the original source.
    fn detail(&mut self, column: &str, value: &str, value_without: &str) -> String {
        let (quantifier, relation) = if value == value_without { ("NOT EXISTS", "<>") } else { ("EXISTS", "=") };
        let value = self.bind_text(value);
        format!(
            " AND {quantifier} (SELECT 1 FROM postroom_details d
                                WHERE d.message_id = m.message_id AND d.{column} {relation} {value})"
        )
    }

    pub async fn rows(&self, client: &Client) -> Result<Vec<Row>, Failure> {
        self.values.rows(client, &self.text).await
    }

    /// The rows, one after the other as they arrive.
    pub async fn stream(&self, client: &Client) -> Result<RowStream, Failure> {
        self.values.stream(client, &self.text).await
    }

    /// The one number that the statement finds.
    pub async fn number(&self, client: &Client) -> Result<u64, Failure> {
        let number: i64 = self.values.value(client, &self.text).await?;
        Ok(u64::try_from(number).unwrap_or(0))
    }
}
