-- What Postroom keeps beside `messages`: nothing but notes of what other programs changed.
--
-- Order, senders, totals and search are derived outside this file, in an index that covers all rows up to some rowid and all
-- notes up to some number. What was appended since is found behind that rowid; everything else that may have happened to a
-- row is noted here. So a note says: the index's entry for this row with these values is dead, if there is one, and the row
-- must be looked at again. A note too many does no harm; one too few would be a wrong answer.
--
-- Only functions of stock SQLite are used, so that any program may go on writing to `messages`. Nothing in a trigger has a
-- conflict clause, since that of the statement that fired it would override it, and nothing can conflict.

-- What version 1 kept in the transaction of the rows. Files without it are not given it on the way here.
DROP TRIGGER IF EXISTS postroom_messages_before_insert;
DROP TRIGGER IF EXISTS postroom_messages_insert;
DROP TRIGGER IF EXISTS postroom_messages_delete;
DROP TRIGGER IF EXISTS postroom_messages_update;
DROP TRIGGER IF EXISTS postroom_messages_before_rename;
DROP TRIGGER IF EXISTS postroom_messages_rename;
DROP VIEW IF EXISTS postroom_count;
DROP INDEX IF EXISTS postroom_messages_ts;
DROP INDEX IF EXISTS postroom_messages_from;
DROP TABLE IF EXISTS postroom_senders;
DROP TABLE IF EXISTS postroom_replaced;

-- A table that is renamed takes its triggers with it; ours are put back where they belong.
DROP TRIGGER IF EXISTS postroom_noted;
DROP TRIGGER IF EXISTS postroom_note_replaced;
DROP TRIGGER IF EXISTS postroom_note_insert;
DROP TRIGGER IF EXISTS postroom_note_delete;
DROP TRIGGER IF EXISTS postroom_note_displaced;
DROP TRIGGER IF EXISTS postroom_note_update;

-- One row. `epoch` changes when rows may have changed without notes: what was derived before says nothing any more.
-- `high_row` is no less than any rowid that was given up, so a rowid beyond it and beyond the table was never used. `probe`
-- is filled for a moment to find out whether there is space again; it is null otherwise.
CREATE TABLE IF NOT EXISTS postroom_index (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    epoch TEXT NOT NULL,
    high_row INTEGER NOT NULL,
    probe BLOB
);
INSERT INTO postroom_index (only_row, epoch, high_row)
    SELECT 1, lower(hex(randomblob(16))), 0 WHERE NOT EXISTS (SELECT 1 FROM postroom_index);

-- The values are the old ones, exactly as stored; null where there was no row. No number is given twice.
CREATE TABLE IF NOT EXISTS postroom_changes (
    change INTEGER PRIMARY KEY AUTOINCREMENT,
    row INTEGER NOT NULL,
    message_id,
    ts,
    from_msisdn
);

CREATE TRIGGER IF NOT EXISTS postroom_noted AFTER INSERT ON postroom_changes BEGIN
    UPDATE postroom_index SET high_row = NEW.row WHERE high_row < NEW.row;
END;

-- INSERT OR REPLACE removes rows without firing a delete trigger: one with the same id, one with the same rowid.
CREATE TRIGGER IF NOT EXISTS postroom_note_replaced BEFORE INSERT ON messages BEGIN
    INSERT INTO postroom_changes (row, message_id, ts, from_msisdn)
        SELECT rowid, message_id, ts, from_msisdn FROM messages
        WHERE message_id = NEW.message_id OR rowid = NEW.rowid;
END;

-- An append is found without a note. A row that is not beyond all others may lie among those that the index knows.
CREATE TRIGGER IF NOT EXISTS postroom_note_insert AFTER INSERT ON messages
WHEN NEW.rowid < (SELECT max(rowid) FROM messages) OR NEW.rowid <= (SELECT high_row FROM postroom_index) BEGIN
    INSERT INTO postroom_changes (row) VALUES (NEW.rowid);
END;

CREATE TRIGGER IF NOT EXISTS postroom_note_delete AFTER DELETE ON messages BEGIN
    INSERT INTO postroom_changes (row, message_id, ts, from_msisdn)
        VALUES (OLD.rowid, OLD.message_id, OLD.ts, OLD.from_msisdn);
END;

-- UPDATE OR REPLACE of an id or a rowid removes whoever had it, silently too.
CREATE TRIGGER IF NOT EXISTS postroom_note_displaced BEFORE UPDATE ON messages
WHEN NEW.message_id IS NOT OLD.message_id OR NEW.rowid <> OLD.rowid BEGIN
    INSERT INTO postroom_changes (row, message_id, ts, from_msisdn)
        SELECT rowid, message_id, ts, from_msisdn FROM messages
        WHERE (message_id = NEW.message_id OR rowid = NEW.rowid) AND rowid <> OLD.rowid;
END;

CREATE TRIGGER IF NOT EXISTS postroom_note_update AFTER UPDATE ON messages BEGIN
    INSERT INTO postroom_changes (row, message_id, ts, from_msisdn)
        VALUES (OLD.rowid, OLD.message_id, OLD.ts, OLD.from_msisdn);
    INSERT INTO postroom_changes (row) SELECT NEW.rowid WHERE NEW.rowid <> OLD.rowid;
END;

-- Version 1 knows by this name that a file is ours, and by the version then that it must not touch it. For that it stays,
-- without a row.
CREATE TABLE IF NOT EXISTS postroom_totals (only_row INTEGER PRIMARY KEY);
DELETE FROM postroom_totals;
