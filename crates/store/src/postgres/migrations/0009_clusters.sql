-- Numbers of arrival hold whatever becomes of the data: a dump that was restored elsewhere, a standby that was promoted, rows that another
-- program brings with numbers of their own. Who gives a number looks first whether this is still the cluster that gave the last ones.
-- May be run again on what it made.

-- Which cluster, and which of its timelines, gave the last numbers.
ALTER TABLE postroom_state ADD COLUMN IF NOT EXISTS cluster TEXT;
-- A row that came without a number of ours waits for one up here, above all numbers there will ever be.
CREATE SEQUENCE IF NOT EXISTS postroom_waiting_rows;

-- The cluster and its timeline; nothing where the server does not say.
CREATE OR REPLACE FUNCTION postroom_cluster() RETURNS TEXT LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN (SELECT system_identifier FROM pg_control_system())::text || '/' || left(pg_walfile_name(pg_current_wal_lsn()), 8);
EXCEPTION WHEN OTHERS THEN
    RETURN '';
END
$$;

-- Sees to it that the next numbers are above all that were ever given, and returns what they begin at. `seen` is the greatest that whoever asks
-- knows of. In another cluster, after a promotion, and where less is there than was seen, so far above that the numbers of what was lost on the
-- way are not given again (2^30 transactions): who follows arrivals may have seen them.
CREATE OR REPLACE FUNCTION postroom_settle(here TEXT, seen BIGINT) RETURNS BIGINT LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    state RECORD;
    base BIGINT;
BEGIN
    SELECT s.arrival_base, s.cluster, greatest(s.counted, f.packed) AS derived, greatest(f.arrival, seen) AS given,
           pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS oldest, pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS next
    INTO STRICT state
    FROM postroom_state s, (SELECT (SELECT max(arrival) FROM messages WHERE arrival < 4611686018427387904) AS arrival,
                                   (SELECT max(packed) FROM postroom_search) AS packed) f;
    IF (here = '' OR state.cluster IS NOT DISTINCT FROM here)
        AND state.arrival_base + (state.oldest << 20) > coalesce(state.derived, 0)
        AND state.arrival_base + (state.next << 20) > coalesce(state.given, 0)
    THEN
        RETURN state.arrival_base;
    END IF;
    -- Whoever comes first. The others wait for it and find it done.
    UPDATE postroom_state s SET
        arrival_base = greatest(s.arrival_base, ((greatest(state.derived, state.given, 0) >> 20) + 1 - state.oldest) << 20)
            + CASE WHEN s.cluster <> here AND here <> '' OR s.arrival_base + (state.next << 20) <= seen THEN 1125899906842624 ELSE 0 END,
        cluster = coalesce(nullif(here, ''), s.cluster)
    WHERE s.arrival_base = state.arrival_base AND s.cluster IS NOT DISTINCT FROM state.cluster;
    SELECT s.arrival_base INTO STRICT base FROM postroom_state s;
    RETURN base;
END
$$;

-- The first number of this transaction.
CREATE OR REPLACE FUNCTION postroom_first_arrival() RETURNS BIGINT LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    -- A process of the server stays in its cluster, so each asks once.
    here TEXT := coalesce(current_setting('postroom.cluster', true), '');
    own BIGINT := pg_current_xact_id()::text::bigint << 20;
    state RECORD;
    first BIGINT;
BEGIN
    IF here = '' THEN
        here := postroom_cluster();
        PERFORM set_config('postroom.cluster', here, false);
    END IF;
    SELECT s.arrival_base, s.counted, s.cluster INTO STRICT state FROM postroom_state s;
    first := state.arrival_base + own;
    IF (here <> '' AND state.cluster IS DISTINCT FROM here) OR first <= state.counted THEN
        first := postroom_settle(here, 0) + own;
    END IF;
    -- By this the trigger below knows numbers of this transaction.
    PERFORM set_config('postroom.number', (first >> 20)::text, true);
    RETURN first;
END
$$;

CREATE OR REPLACE FUNCTION postroom_file(
    ids TEXT[], senders TEXT[], recipients TEXT[], times TEXT[], texts TEXT[], exact BYTEA[], accepted TEXT[],
    attempt BIGINT, waits_for TEXT
) RETURNS SETOF BIGINT LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    first BIGINT;
BEGIN
    -- For this transaction only, its commit included: one that gives up waiting for a standby says so by a warning and nothing else.
    PERFORM set_config('synchronous_commit', waits_for, true), set_config('client_min_messages', 'warning', true);
    first := postroom_first_arrival();
    RETURN QUERY
        INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, text_exact, created_at, ingest_id, arrival)
        SELECT m.id, m.sender, m.recipient, m.at, m.content, m.bytes, m.created, attempt, first + m.place - 1
        FROM unnest(ids, senders, recipients, times, texts, exact, accepted)
            WITH ORDINALITY AS m (id, sender, recipient, at, content, bytes, created, place)
        ON CONFLICT (message_id) DO NOTHING
        RETURNING messages.arrival;
END $$;

CREATE OR REPLACE FUNCTION postroom_next_arrival() RETURNS BIGINT LANGUAGE plpgsql VOLATILE AS $$
DECLARE
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
    RETURN postroom_first_arrival() + 524288 + row_number % 524288;
END
$$;

-- What the triggers below do. They run with the rights of the tables' owner and name everything by its schema, as those before them.
CREATE OR REPLACE FUNCTION postroom_wait() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    NEW.arrival := 4611686018427387904 + nextval(format('%I.postroom_waiting_rows', TG_TABLE_SCHEMA)::regclass);
    RETURN NEW;
END
$$;
CREATE OR REPLACE FUNCTION postroom_arrive_anew() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('session_replication_role') = 'replica' THEN
        -- As many as another server changed in one transaction.
        NEW.arrival := 4611686018427387904 + nextval(format('%I.postroom_waiting_rows', TG_TABLE_SCHEMA)::regclass);
    ELSE
        PERFORM set_config('search_path', quote_ident(TG_TABLE_SCHEMA) || ', pg_temp', true);
        NEW.arrival := postroom_next_arrival();
    END IF;
    RETURN NEW;
END
$$;
-- Row by row, where no trigger of statements fires: for what logical replication deletes and changes.
CREATE OR REPLACE FUNCTION postroom_note_row() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF OLD.arrival IS NOT NULL THEN
        EXECUTE format('INSERT INTO %I.postroom_gone (arrival, from_msisdn, ts) VALUES ($1, $2, $3)', TG_TABLE_SCHEMA)
            USING OLD.arrival, OLD.from_msisdn, OLD.ts;
        IF OLD.text IS NOT NULL THEN
            EXECUTE format('INSERT INTO %I.postroom_gone_texts (arrival) VALUES ($1)', TG_TABLE_SCHEMA) USING OLD.arrival;
        END IF;
    END IF;
    RETURN NULL;
END
$$;

-- Whether all triggers on messages are there and fire always, also for what is restored and replicated. Where somebody switched them off for
-- a while, as a restore does, they are in another state afterwards.
CREATE OR REPLACE FUNCTION postroom_watched() RETURNS BOOLEAN LANGUAGE sql STABLE AS $$
    SELECT count(*) = 6 FROM pg_trigger WHERE tgrelid = to_regclass('messages') AND tgenabled = 'A' AND tgname IN
        ('postroom_arrive', 'postroom_arrive_anew', 'postroom_note_deleted', 'postroom_note_updated', 'postroom_note_row',
         'postroom_note_emptied')
$$;
-- Makes them anew.
CREATE OR REPLACE FUNCTION postroom_watch() RETURNS VOID LANGUAGE plpgsql AS $$
BEGIN
    DROP TRIGGER IF EXISTS postroom_arrive ON messages;
    -- Who took the number from us is let through at the cost of a comparison. A row without one, or with one of another transaction, waits.
    CREATE TRIGGER postroom_arrive BEFORE INSERT ON messages FOR EACH ROW
        WHEN ((NEW.arrival >> 20)::text IS DISTINCT FROM coalesce(current_setting('postroom.number', true), ''))
        EXECUTE FUNCTION postroom_wait();
    DROP TRIGGER IF EXISTS postroom_arrive_anew ON messages;
    CREATE TRIGGER postroom_arrive_anew BEFORE UPDATE ON messages
        FOR EACH ROW EXECUTE FUNCTION postroom_arrive_anew();
    DROP TRIGGER IF EXISTS postroom_note_deleted ON messages;
    CREATE TRIGGER postroom_note_deleted AFTER DELETE ON messages REFERENCING OLD TABLE AS gone FOR EACH STATEMENT
        WHEN (current_setting('session_replication_role') <> 'replica') EXECUTE FUNCTION postroom_note_gone();
    DROP TRIGGER IF EXISTS postroom_note_updated ON messages;
    CREATE TRIGGER postroom_note_updated AFTER UPDATE ON messages REFERENCING OLD TABLE AS gone FOR EACH STATEMENT
        WHEN (current_setting('session_replication_role') <> 'replica') EXECUTE FUNCTION postroom_note_gone();
    DROP TRIGGER IF EXISTS postroom_note_row ON messages;
    CREATE TRIGGER postroom_note_row AFTER DELETE OR UPDATE ON messages FOR EACH ROW
        WHEN (current_setting('session_replication_role') = 'replica') EXECUTE FUNCTION postroom_note_row();
    DROP TRIGGER IF EXISTS postroom_note_emptied ON messages;
    CREATE TRIGGER postroom_note_emptied AFTER TRUNCATE ON messages
        FOR EACH STATEMENT EXECUTE FUNCTION postroom_note_emptied();
    ALTER TABLE messages ENABLE ALWAYS TRIGGER postroom_arrive, ENABLE ALWAYS TRIGGER postroom_arrive_anew,
        ENABLE ALWAYS TRIGGER postroom_note_deleted, ENABLE ALWAYS TRIGGER postroom_note_updated,
        ENABLE ALWAYS TRIGGER postroom_note_row, ENABLE ALWAYS TRIGGER postroom_note_emptied;
END
$$;

-- Gives numbers to some rows that wait for one, in the order in which they came, and returns how many they were.
CREATE OR REPLACE FUNCTION postroom_admit(most BIGINT) RETURNS BIGINT LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    admitted BIGINT;
    nameless BIGINT;
BEGIN
    UPDATE messages SET arrival = postroom_next_arrival() WHERE message_id = ANY(ARRAY(
        SELECT w.message_id FROM messages w WHERE w.arrival >= 4611686018427387904
        ORDER BY w.arrival LIMIT most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS admitted = ROW_COUNT;
    UPDATE messages SET arrival = postroom_next_arrival() WHERE message_id = ANY(ARRAY(
        SELECT w.message_id FROM messages w WHERE w.arrival IS NULL LIMIT most FOR UPDATE SKIP LOCKED));
    GET DIAGNOSTICS nameless = ROW_COUNT;
    RETURN admitted + nameless;
END
$$;

-- These change what only the owner of the tables may, for whoever serves or writes messages.
DO $$
DECLARE
    place TEXT := (SELECT quote_ident(n.nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                   WHERE c.oid = to_regclass('messages'));
    name TEXT;
BEGIN
    FOREACH name IN ARRAY ARRAY['postroom_next_arrival()', 'postroom_watch()', 'postroom_admit(bigint)'] LOOP
        EXECUTE format('ALTER FUNCTION %s.%s SECURITY DEFINER SET search_path = %s, pg_temp', place, name, place);
    END LOOP;
END
$$;
-- Here nothing waits for a standby. Where the data came from another cluster, its numbers show it at the start.
UPDATE postroom_state SET cluster = nullif(postroom_cluster(), '') WHERE cluster IS NULL;
-- Last, since it holds up the table until the end of this.
SELECT postroom_watch();
