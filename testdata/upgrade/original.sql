-- original.db as the original Python service leaves it: its own CREATE TABLE, a rollback journal, user_version 0, and rows
-- that it took though it should not have. Made anew by: sqlite3 original.db < original.sql
CREATE TABLE IF NOT EXISTS messages (
    message_id TEXT PRIMARY KEY,
    from_msisdn TEXT NOT NULL,
    to_msisdn TEXT NOT NULL,
    ts TEXT NOT NULL,
    text TEXT,
    created_at TEXT NOT NULL
);
INSERT INTO messages VALUES
    ('m1', '+919876543210', '+14155550100', '2025-01-15T09:00:00Z', 'Earlier', '2025-01-15T09:00:01.123456Z'),
    ('m2', '+919876543210', '+14155550100', '2025-01-15T10:00:00Z', 'Hello', '2025-01-15T10:00:00Z'),
    ('m3', '+911234567890', '+14155550100', '2025-01-15T11:00:00Z', NULL, '2025-01-15T11:00:00.5Z'),
    ('no such day', '+911234567890', '+14155550100', '2025-02-30T99:99:99Z', '', '2025-02-28T10:00:00Z'),
    ('newline', '+123' || char(10), '+14155550100', '2025-01-15T12:00:00Z', 'a line too many', '2025-01-15T12:00:00Z'),
    ('digits', '+٣٤٥', '+14155550100', '２０２５-01-15T13:00:00Z', '数字', '2025-01-15T13:00:00Z');
