-- The search index by stretches of texts, instead of a GIN index over numbers beside each text: made anew from `messages`. What
-- replicas of an earlier build search by stays, and they go on keeping it; `postroom reindex` removes it.

-- Up to this arrival the tables below hold the texts; `indexed` is about those of the earlier build.
ALTER TABLE postroom_search ADD COLUMN IF NOT EXISTS packed BIGINT NOT NULL DEFAULT 0;
-- How many texts they hold.
ALTER TABLE postroom_search ADD COLUMN IF NOT EXISTS texts BIGINT NOT NULL DEFAULT 0;

-- Texts, numbered from 0 in the order in which they were indexed: folded, as bytes, and beside them what searches are narrowed and
-- sorted by, so that a match costs one look.
CREATE TABLE IF NOT EXISTS postroom_folded (
    number BIGINT PRIMARY KEY,
    arrival BIGINT NOT NULL,
    from_msisdn TEXT COLLATE "C" NOT NULL,
    ts TEXT COLLATE "C" NOT NULL,
    folded BYTEA NOT NULL
);
-- For each run of characters and each stretch of texts: how many of them have it, and which, as packed numbers. A stretch is told
-- by the number of its last text. Stretches of one level are merged into one of the next.
CREATE TABLE IF NOT EXISTS postroom_runs (
    level SMALLINT NOT NULL,
    run BIGINT NOT NULL,
    last BIGINT NOT NULL,
    texts INTEGER NOT NULL,
    numbers BYTEA NOT NULL,
    PRIMARY KEY (level, run, last)
);
-- Packed already.
ALTER TABLE postroom_runs ALTER COLUMN numbers SET STORAGE EXTERNAL;
CREATE TABLE IF NOT EXISTS postroom_stretches (
    level SMALLINT NOT NULL,
    last BIGINT NOT NULL,
    PRIMARY KEY (level, last)
);
