//! The columns of a message in a statement, and its values in the form of the index.

use rusqlite::Row as SqlRow;
use rusqlite::types::ValueRef;

use index::key;
use index::key::Value;

/// The columns of a statement with the values of a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Columns {
    pub row: usize,
    pub id: usize,
    pub from: usize,
    pub to: usize,
    pub ts: usize,
    pub text: usize,
    pub created_at: usize,
}

impl Columns {
    /// `rowid, ts, message_id, from_msisdn, to_msisdn, text, created_at`: for indexing.
    pub const TAKEN_IN: Self = Self { row: 0, ts: 1, id: 2, from: 3, to: 4, text: 5, created_at: 6 };
    /// `message_id, from_msisdn, to_msisdn, ts, text, rowid, created_at`: for listings.
    pub const LISTED: Self = Self { id: 0, from: 1, to: 2, ts: 3, text: 4, row: 5, created_at: 6 };
    /// `message_id, from_msisdn, to_msisdn, ts, text, created_at, …, …, rowid`: for a message with its details.
    pub const FULL: Self = Self { id: 0, from: 1, to: 2, ts: 3, text: 4, created_at: 5, row: 8 };

    /// A hash of the stored row, including the types of its values. A changed byte always changes the hash.
    pub fn hash(self, row: &SqlRow<'_>) -> rusqlite::Result<u32> {
        let mut hasher = crc32fast::Hasher::new();
        for column in [self.id, self.from, self.to, self.ts, self.text, self.created_at] {
            let mut put = |kind: u8, bytes: &[u8]| {
                hasher.update(&[kind]);
                hasher.update(&(bytes.len() as u64).to_le_bytes());
                hasher.update(bytes);
            };
            match row.get_ref(column)? {
                ValueRef::Null => put(0, &[]),
                ValueRef::Integer(number) => put(1, &number.to_le_bytes()),
                ValueRef::Real(number) => put(2, &number.to_bits().to_le_bytes()),
                ValueRef::Text(bytes) => put(3, bytes),
                ValueRef::Blob(bytes) => put(4, bytes),
            }
        }
        Ok(hasher.finalize())
    }

    /// The row's position in listing order.
    pub fn place(self, row: &SqlRow<'_>) -> rusqlite::Result<Vec<u8>> {
        Ok(key::place(value(row.get_ref(self.ts)?), value(row.get_ref(self.id)?)))
    }
}

/// A value as the index sorts it.
pub(super) fn value(value: ValueRef<'_>) -> Value<'_> {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(bytes) => Value::Text(bytes),
        ValueRef::Blob(bytes) => Value::Blob(bytes),
    }
}
