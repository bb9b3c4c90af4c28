-- Files a batch of messages and answers the arrival numbers of those that were not there before. As a function, its statements are
-- planned once per connection of the server's, also behind a pooler that gives each transaction another one: planning them each time
-- is a tenth and more of what a batch costs the server.
CREATE OR REPLACE FUNCTION postroom_file(
    ids TEXT[], senders TEXT[], recipients TEXT[], times TEXT[], texts TEXT[], exact BYTEA[], accepted TEXT[],
    attempt BIGINT, waits_for TEXT
) RETURNS SETOF BIGINT LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    first BIGINT;
BEGIN
    -- For this transaction only, its commit included.
    PERFORM set_config('synchronous_commit', waits_for, true);
    SELECT arrival_base + (pg_current_xact_id()::text::bigint << 20) INTO STRICT first FROM postroom_state;
    RETURN QUERY
        INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, text_exact, created_at, ingest_id, arrival)
        SELECT m.id, m.sender, m.recipient, m.at, m.content, m.bytes, m.created, attempt, first + m.place - 1
        FROM unnest(ids, senders, recipients, times, texts, exact, accepted)
            WITH ORDINALITY AS m (id, sender, recipient, at, content, bytes, created, place)
        ON CONFLICT (message_id) DO NOTHING
        RETURNING messages.arrival;
END $$;
