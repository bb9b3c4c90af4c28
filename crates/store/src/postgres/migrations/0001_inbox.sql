-- The inbox on PostgreSQL. `messages` has the six columns of every Postroom, and three nullable ones of ours; all else begins
-- with `postroom_` and can be built again from `messages`. No extension, no right beyond CREATE on the schema.

CREATE TABLE IF NOT EXISTS postroom_state (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    -- Added to every arrival number, so that numbers go on rising after the data moved to another cluster.
    arrival_base BIGINT NOT NULL DEFAULT 0,
    -- Up to this arrival the counters below, and those of the other tables, hold what is stored.
    counted BIGINT NOT NULL DEFAULT 0,
    messages BIGINT NOT NULL DEFAULT 0,
    senders BIGINT NOT NULL DEFAULT 0
);
INSERT INTO postroom_state (id) VALUES (1) ON CONFLICT DO NOTHING;

-- The number of a row that another program inserts: behind those that a batch of ours can use.
CREATE SEQUENCE IF NOT EXISTS postroom_foreign_rows;
CREATE OR REPLACE FUNCTION postroom_next_arrival() RETURNS BIGINT LANGUAGE sql VOLATILE AS $$
    SELECT arrival_base + (pg_current_xact_id()::text::bigint << 20) + 524288 + nextval('postroom_foreign_rows') % 524288
    FROM postroom_state
$$;

CREATE TABLE IF NOT EXISTS messages (
    message_id TEXT COLLATE "C" PRIMARY KEY,
    from_msisdn TEXT COLLATE "C" NOT NULL,
    to_msisdn TEXT COLLATE "C" NOT NULL,
    ts TEXT COLLATE "C" NOT NULL,
    text TEXT,
    created_at TEXT NOT NULL
);
-- The exact bytes of a text with NUL, which TEXT cannot hold.
ALTER TABLE messages ADD COLUMN IF NOT EXISTS text_exact BYTEA;
-- Which attempt of which replica wrote the row: tells our own row from another's when a commit's answer was lost.
ALTER TABLE messages ADD COLUMN IF NOT EXISTS ingest_id BIGINT;
-- The number of the transaction, and the place within it: the order of arrival.
ALTER TABLE messages ADD COLUMN IF NOT EXISTS arrival BIGINT DEFAULT postroom_next_arrival();

CREATE INDEX IF NOT EXISTS postroom_messages_ts ON messages (ts, message_id);
CREATE INDEX IF NOT EXISTS postroom_messages_from ON messages (from_msisdn, ts, message_id);
CREATE INDEX IF NOT EXISTS postroom_messages_arrival ON messages (arrival);

-- Messages by day, hour and minute: `bucket` is the first 10, 13 or 16 characters of `ts`, `level` says how many.
CREATE TABLE IF NOT EXISTS postroom_buckets (
    level SMALLINT NOT NULL,
    bucket TEXT COLLATE "C" NOT NULL,
    messages BIGINT NOT NULL,
    PRIMARY KEY (level, bucket)
);

CREATE TABLE IF NOT EXISTS postroom_senders (
    from_msisdn TEXT COLLATE "C" PRIMARY KEY,
    messages BIGINT NOT NULL
);
CREATE INDEX IF NOT EXISTS postroom_senders_top ON postroom_senders (messages DESC, from_msisdn);

CREATE TABLE IF NOT EXISTS postroom_sender_days (
    from_msisdn TEXT COLLATE "C" NOT NULL,
    bucket TEXT COLLATE "C" NOT NULL,
    messages BIGINT NOT NULL,
    PRIMARY KEY (from_msisdn, bucket)
);

-- What searches look into: folded texts as bytes, and a number for each run of up to three characters in them.
CREATE TABLE IF NOT EXISTS postroom_texts (
    arrival BIGINT PRIMARY KEY,
    folded BYTEA NOT NULL,
    grams INTEGER[] NOT NULL
);
CREATE INDEX IF NOT EXISTS postroom_texts_grams ON postroom_texts USING gin (grams);

CREATE TABLE IF NOT EXISTS postroom_search (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    -- Up to this arrival the texts are there.
    indexed BIGINT NOT NULL DEFAULT 0,
    -- The Unicode version that they were folded by.
    unicode TEXT NOT NULL
);

-- Where readiness finds out whether there is room.
CREATE TABLE IF NOT EXISTS postroom_probe (filler BYTEA);

-- How far `postroom copy` has come, by source: written with the rows, so it goes on where it stopped.
CREATE TABLE IF NOT EXISTS postroom_copies (
    source TEXT COLLATE "C" PRIMARY KEY,
    position BIGINT NOT NULL
);
