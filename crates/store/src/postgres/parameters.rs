//! The values of a statement's parameters, in order, each with its type. A column of
//! many rows is one value: an array, which `unnest` in the statement turns into rows.

use tokio_postgres::types::{FromSqlOwned, ToSql, Type};
use tokio_postgres::{Client, Row, RowStream};

use super::failure::Failure;

type Value<'a> = Box<dyn ToSql + Sync + Send + 'a>;

/// Parameters under construction. They are sent unnamed and with their types,
/// so that a statement takes one round trip and works through poolers.
#[derive(Debug, Default)]
pub(crate) struct Parameters<'a> {
    values: Vec<(Value<'a>, Type)>,
}

impl<'a> Parameters<'a> {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Adds one value.
    pub fn push(&mut self, value: impl ToSql + Sync + Send + 'a, kind: Type) {
        self.values.push((Box::new(value), kind));
    }

    fn with(mut self, value: impl ToSql + Sync + Send + 'a, kind: Type) -> Self {
        self.push(value, kind);
        self
    }

    pub fn text(self, text: impl ToSql + Sync + Send + 'a) -> Self {
        self.with(text, Type::TEXT)
    }

    pub fn flag(self, flag: bool) -> Self {
        self.with(flag, Type::BOOL)
    }

    pub fn number(self, number: impl Into<Option<i64>>) -> Self {
        self.with(number.into(), Type::INT8)
    }

    pub fn small_number(self, number: i16) -> Self {
        self.with(number, Type::INT2)
    }

    /// A column of texts, each of which may be absent.
    pub fn texts<T: ToSql + Sync + Send + 'a>(self, column: impl IntoIterator<Item = T>) -> Self {
        self.with(column.into_iter().collect::<Vec<_>>(), Type::TEXT_ARRAY)
    }

    /// A column of bytes, each of which may be absent.
    pub fn bytes<T: ToSql + Sync + Send + 'a>(self, column: impl IntoIterator<Item = T>) -> Self {
        self.with(column.into_iter().collect::<Vec<_>>(), Type::BYTEA_ARRAY)
    }

    /// A column of numbers, each of which may be absent.
    pub fn numbers<T: ToSql + Sync + Send + 'a>(self, column: impl IntoIterator<Item = T>) -> Self {
        self.with(column.into_iter().collect::<Vec<_>>(), Type::INT8_ARRAY)
    }

    /// A column of short numbers.
    pub fn counts(self, column: &'a [i32]) -> Self {
        self.with(column, Type::INT4_ARRAY)
    }

    fn typed(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.values.iter().map(|(value, kind)| (value.as_ref() as &(dyn ToSql + Sync), kind.clone())).collect()
    }

    /// All rows of a statement.
    pub async fn rows(&self, client: &Client, sql: &str) -> Result<Vec<Row>, Failure> {
        Ok(client.query_typed(sql, &self.typed()).await?)
    }

    /// The one row of a statement.
    pub async fn row(&self, client: &Client, sql: &str) -> Result<Row, Failure> {
        Ok(client.query_typed_one(sql, &self.typed()).await?)
    }

    /// The value of a statement that has one row of one column.
    pub async fn value<T: FromSqlOwned>(&self, client: &Client, sql: &str) -> Result<T, Failure> {
        Ok(self.row(client, sql).await?.get(0))
    }

    /// The row of a statement, if there is one.
    pub async fn row_if_any(&self, client: &Client, sql: &str) -> Result<Option<Row>, Failure> {
        Ok(client.query_typed_opt(sql, &self.typed()).await?)
    }

    /// The rows, one after the other as they arrive.
    pub async fn stream(&self, client: &Client, sql: &str) -> Result<RowStream, Failure> {
        Ok(client.query_typed_raw(sql, self.typed()).await?)
    }

    /// Runs a statement without rows, and returns the number of changed rows.
    /// Ends before the commit of a statement that is its own transaction.
    pub async fn execute(&self, client: &Client, sql: &str) -> Result<u64, Failure> {
        Ok(client.execute_typed(sql, &self.typed()).await?)
    }
}
