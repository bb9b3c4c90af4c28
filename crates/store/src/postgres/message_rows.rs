//! Rows of `messages`, and the positions of cursors in them.

use tokio_postgres::Row;

use super::batch::exact;
use domain::{Message, Order, Position, Stored};

/// The columns of a message, and its arrival.
pub(super) const COLUMNS: &str = "m.message_id, m.from_msisdn, m.to_msisdn, m.ts, m.text, m.text_exact, m.arrival";

/// The message of a row that has these columns.
pub(super) fn message(row: &Row) -> Message {
    Message {
        id: row.get("message_id"),
        from: row.get("from_msisdn"),
        to: row.get("to_msisdn"),
        ts: row.get("ts"),
        text: text(row),
    }
}

/// Its text alone.
pub(super) fn text(row: &Row) -> Option<String> {
    exact(row.get("text"), row.get("text_exact"))
}

/// The position of a row; a page begins after it.
pub(super) fn position(row: &Row, order: Order) -> Position {
    let stored = |column| Stored { bytes: row.get::<_, &str>(column).into(), is_blob: false };
    match order {
        Order::Time => Position::Time { ts: stored("ts"), id: stored("message_id") },
        Order::Arrival => Position::Arrival(row.get("arrival")),
    }
}

/// A stored text of a cursor. A cursor of another engine may have invalid bytes, which are replaced.
pub(super) fn text_of(stored: &Stored) -> String {
    String::from_utf8_lossy(&stored.bytes).replace('\0', "")
}
