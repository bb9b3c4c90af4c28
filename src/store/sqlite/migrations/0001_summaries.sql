-- What Postroom keeps beside `messages`: the order of listings, the senders, and how many messages there are.
--
-- Everything here is derived and can be dropped and built again. Only functions of stock SQLite are used, so that any
-- program may go on writing to `messages`: the triggers keep the summaries true for it, in its own transaction.

CREATE INDEX IF NOT EXISTS postroom_messages_ts ON messages (ts, message_id);
CREATE INDEX IF NOT EXISTS postroom_messages_from ON messages (from_msisdn, ts, message_id);

-- One row. `probe` is filled for a moment to find out whether there is space again; it is null otherwise.
CREATE TABLE IF NOT EXISTS postroom_totals (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    messages INTEGER NOT NULL,
    senders INTEGER NOT NULL,
    probe BLOB
);
INSERT INTO postroom_totals (only_row, messages, senders)
    SELECT 1, 0, 0 WHERE NOT EXISTS (SELECT 1 FROM postroom_totals);

CREATE TABLE IF NOT EXISTS postroom_senders (
    from_msisdn TEXT PRIMARY KEY,
    messages INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS postroom_senders_top ON postroom_senders (messages DESC, from_msisdn);

-- The arithmetic of the triggers stands once: they insert into this view. (Postroom's own writer, which does without
-- triggers, adds up a whole batch first.)
CREATE VIEW IF NOT EXISTS postroom_count AS SELECT from_msisdn, messages AS change FROM postroom_senders;

-- No conflict clauses here: that of the statement that fired a trigger would override them.
CREATE TRIGGER IF NOT EXISTS postroom_count_insert INSTEAD OF INSERT ON postroom_count BEGIN
    INSERT INTO postroom_senders (from_msisdn, messages)
        SELECT NEW.from_msisdn, 0
        WHERE NOT EXISTS (SELECT 1 FROM postroom_senders WHERE from_msisdn = NEW.from_msisdn);
    UPDATE postroom_totals SET
        messages = messages + NEW.change,
        senders = senders + (
            SELECT (messages + NEW.change > 0) - (messages > 0)
            FROM postroom_senders WHERE from_msisdn = NEW.from_msisdn
        );
    UPDATE postroom_senders SET messages = messages + NEW.change WHERE from_msisdn = NEW.from_msisdn;
    DELETE FROM postroom_senders WHERE from_msisdn = NEW.from_msisdn AND messages = 0;
END;

-- INSERT OR REPLACE (and UPDATE OR REPLACE of an id) removes the old row without firing a delete trigger, so its sender is
-- noted beforehand. A note whose statement was then ignored stays behind without effect.
CREATE TABLE IF NOT EXISTS postroom_replaced (message_id TEXT PRIMARY KEY, from_msisdn TEXT NOT NULL) WITHOUT ROWID;

CREATE TRIGGER IF NOT EXISTS postroom_messages_before_insert BEFORE INSERT ON messages BEGIN
    DELETE FROM postroom_replaced WHERE message_id = NEW.message_id;
    INSERT INTO postroom_replaced (message_id, from_msisdn)
        SELECT message_id, from_msisdn FROM messages WHERE message_id = NEW.message_id;
END;

CREATE TRIGGER IF NOT EXISTS postroom_messages_insert AFTER INSERT ON messages BEGIN
    INSERT INTO postroom_count (from_msisdn, change)
        SELECT from_msisdn, -1 FROM postroom_replaced WHERE message_id = NEW.message_id;
    DELETE FROM postroom_replaced WHERE message_id = NEW.message_id;
    INSERT INTO postroom_count (from_msisdn, change) VALUES (NEW.from_msisdn, 1);
END;

CREATE TRIGGER IF NOT EXISTS postroom_messages_delete AFTER DELETE ON messages BEGIN
    DELETE FROM postroom_replaced WHERE message_id = OLD.message_id;
    INSERT INTO postroom_count (from_msisdn, change) VALUES (OLD.from_msisdn, -1);
END;

CREATE TRIGGER IF NOT EXISTS postroom_messages_update AFTER UPDATE OF from_msisdn ON messages
WHEN OLD.from_msisdn IS NOT NEW.from_msisdn BEGIN
    INSERT INTO postroom_count (from_msisdn, change) VALUES (OLD.from_msisdn, -1);
    INSERT INTO postroom_count (from_msisdn, change) VALUES (NEW.from_msisdn, 1);
END;

CREATE TRIGGER IF NOT EXISTS postroom_messages_before_rename BEFORE UPDATE OF message_id ON messages
WHEN OLD.message_id IS NOT NEW.message_id BEGIN
    DELETE FROM postroom_replaced WHERE message_id = NEW.message_id;
    INSERT INTO postroom_replaced (message_id, from_msisdn)
        SELECT message_id, from_msisdn FROM messages WHERE message_id = NEW.message_id;
END;

CREATE TRIGGER IF NOT EXISTS postroom_messages_rename AFTER UPDATE OF message_id ON messages
WHEN OLD.message_id IS NOT NEW.message_id BEGIN
    INSERT INTO postroom_count (from_msisdn, change)
        SELECT from_msisdn, -1 FROM postroom_replaced WHERE message_id = NEW.message_id;
    DELETE FROM postroom_replaced WHERE message_id = NEW.message_id;
END;
