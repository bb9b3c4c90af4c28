-- What other programs delete from `messages` and change in it is noted, in their own transactions, so that totals, statistics and
-- searches stay what the table says. A changed row counts as one that is gone and one that arrives anew. Nothing here is touched by
-- a message that is stored.

-- Rows as they were. Those up to `counted` are in the counters still.
CREATE TABLE IF NOT EXISTS postroom_gone (
    arrival BIGINT NOT NULL,
    from_msisdn TEXT COLLATE "C" NOT NULL,
    ts TEXT COLLATE "C" NOT NULL
);
CREATE INDEX IF NOT EXISTS postroom_gone_arrival ON postroom_gone (arrival);
-- Rows that had a text. Those up to `packed` are in the search index still.
CREATE TABLE IF NOT EXISTS postroom_gone_texts (arrival BIGINT NOT NULL);
CREATE INDEX IF NOT EXISTS postroom_gone_texts_arrival ON postroom_gone_texts (arrival);
-- How many texts that have a run were taken out of the search index again. The lists keep their numbers.
CREATE TABLE IF NOT EXISTS postroom_run_losses (
    run BIGINT PRIMARY KEY,
    texts BIGINT NOT NULL
);
-- How many texts were taken out; `texts` is how many ever came in.
ALTER TABLE postroom_search ADD COLUMN IF NOT EXISTS removed BIGINT NOT NULL DEFAULT 0;
CREATE INDEX IF NOT EXISTS postroom_folded_arrival ON postroom_folded (arrival);

-- As before, but it refuses what it has no numbers for: two rows of one number would be taken for one.
CREATE OR REPLACE FUNCTION postroom_next_arrival() RETURNS BIGINT LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    -- By its type, or a function of somebody else could suit better, where others may make some.
    row_number BIGINT := nextval('postroom_foreign_rows'::regclass);
    -- Empty in a session in which an earlier transaction set it.
    first_row TEXT := coalesce(current_setting('postroom.first_row', true), '');
BEGIN
    IF first_row = '' THEN
        PERFORM set_config('postroom.first_row', row_number::text, true);
    ELSIF row_number - first_row::bigint >= 524288 THEN
        RAISE EXCEPTION 'a transaction may insert or change 524288 messages at most'
            USING ERRCODE = 'program_limit_exceeded', HINT = 'Do it in several transactions.';
    END IF;
    RETURN (SELECT arrival_base + (pg_current_xact_id()::text::bigint << 20) + 524288 + row_number % 524288 FROM postroom_state);
END
$$;

-- Whoever may change the messages has the notes made, whatever else it may do. So these run with the rights of the tables' owner, and
-- name everything by its schema: nobody can slip them a table of his own.
CREATE OR REPLACE FUNCTION postroom_note_gone() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('INSERT INTO %I.postroom_gone (arrival, from_msisdn, ts) SELECT arrival, from_msisdn, ts FROM gone '
                   'WHERE arrival IS NOT NULL', TG_TABLE_SCHEMA);
    EXECUTE format('INSERT INTO %I.postroom_gone_texts (arrival) SELECT arrival FROM gone '
                   'WHERE arrival IS NOT NULL AND text IS NOT NULL', TG_TABLE_SCHEMA);
    RETURN NULL;
END
$$;
CREATE OR REPLACE FUNCTION postroom_arrive_anew() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM set_config('search_path', quote_ident(TG_TABLE_SCHEMA) || ', pg_temp', true);
    NEW.arrival := postroom_next_arrival();
    RETURN NEW;
END
$$;
CREATE OR REPLACE FUNCTION postroom_note_emptied() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('UPDATE %1$I.postroom_state SET messages = 0, senders = 0; '
                   'UPDATE %1$I.postroom_search SET texts = 0, removed = 0; '
                   'TRUNCATE %1$I.postroom_buckets, %1$I.postroom_senders, %1$I.postroom_sender_days, %1$I.postroom_gone, '
                   '%1$I.postroom_folded, %1$I.postroom_places, %1$I.postroom_stretches, %1$I.postroom_runs, '
                   '%1$I.postroom_run_losses, %1$I.postroom_gone_texts', TG_TABLE_SCHEMA);
    RETURN NULL;
END
$$;

-- Last, since they hold up the table until the end of this.
DROP TRIGGER IF EXISTS postroom_note_deleted ON messages;
CREATE TRIGGER postroom_note_deleted AFTER DELETE ON messages REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION postroom_note_gone();
DROP TRIGGER IF EXISTS postroom_note_updated ON messages;
CREATE TRIGGER postroom_note_updated AFTER UPDATE ON messages REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION postroom_note_gone();
DROP TRIGGER IF EXISTS postroom_arrive_anew ON messages;
CREATE TRIGGER postroom_arrive_anew BEFORE UPDATE ON messages
    FOR EACH ROW EXECUTE FUNCTION postroom_arrive_anew();
DROP TRIGGER IF EXISTS postroom_note_emptied ON messages;
CREATE TRIGGER postroom_note_emptied AFTER TRUNCATE ON messages
    FOR EACH STATEMENT EXECUTE FUNCTION postroom_note_emptied();
