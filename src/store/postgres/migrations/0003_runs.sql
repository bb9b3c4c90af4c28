-- The search index by stretches of rows, instead of a GIN index over numbers beside each text: made anew from `messages`. What
-- replicas of an earlier build search by stays, and they go on keeping it; `postroom reindex` removes it.

-- Up to this arrival the tables below hold the texts; `indexed` is about those of the earlier build.
ALTER TABLE postroom_search ADD COLUMN IF NOT EXISTS packed BIGINT NOT NULL DEFAULT 0;

-- Folded texts, as bytes.
CREATE TABLE IF NOT EXISTS postroom_folded (
    arrival BIGINT PRIMARY KEY,
    folded BYTEA NOT NULL
);
-- The rows with a text of a stretch, which ends with the arrival `last`: their number, and their arrivals, packed.
CREATE TABLE IF NOT EXISTS postroom_stretches (
    last BIGINT PRIMARY KEY,
    messages INTEGER NOT NULL,
    arrivals BYTEA NOT NULL
);
-- For each run of characters, by its number, and each stretch: which of the rows have it, as packed places in `arrivals`.
CREATE TABLE IF NOT EXISTS postroom_runs (
    run INTEGER NOT NULL,
    last BIGINT NOT NULL,
    messages INTEGER NOT NULL,
    places BYTEA NOT NULL,
    PRIMARY KEY (run, last)
);
-- For `postroom check --data`.
CREATE INDEX IF NOT EXISTS postroom_runs_last ON postroom_runs (last);
-- Packed already.
ALTER TABLE postroom_runs ALTER COLUMN places SET STORAGE EXTERNAL;
