-- What requests bring beside messages, filed by functions for the same reason as messages are: planning these statements each time
-- costs the server more than running them. Whoever calls them sees to it that they are planned by way of the keys: such a plan is kept,
-- and one that was made for small tables would be kept while they grow.

-- What is stored already: of bodies (0) their numbers, of statuses (1) and events (2) by which attempt.
CREATE OR REPLACE FUNCTION postroom_look(
    digests BYTEA[], ids TEXT[], recipients TEXT[], states TEXT[], keys TEXT[]
) RETURNS TABLE (what INTEGER, at_place BIGINT, known_by BIGINT) LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN QUERY
        SELECT 0, g.place, k.payload_id FROM unnest(digests) WITH ORDINALITY AS g (digest, place)
        JOIN postroom_payloads k ON k.digest = g.digest;
    RETURN QUERY
        SELECT 1, g.place, k.ingest_id
        FROM unnest(ids, recipients, states) WITH ORDINALITY AS g (message_id, recipient, state, place)
        JOIN postroom_statuses k ON (k.message_id, k.recipient, k.state) = (g.message_id, g.recipient, g.state);
    RETURN QUERY
        SELECT 2, g.place, k.ingest_id FROM unnest(keys) WITH ORDINALITY AS g (event_key, place)
        JOIN postroom_events k ON k.event_key = g.event_key;
END $$;

-- Stores bodies, and gives them numbers in the order in which they stand. What others refer to a body by is its digest. Answers how
-- many were not there before.
CREATE OR REPLACE FUNCTION postroom_bring_payloads(
    digests BYTEA[], sources TEXT[], providers TEXT[], header_lists TEXT[], encodings TEXT[], lengths BIGINT[], bodies BYTEA[],
    accepted TEXT[]
) RETURNS BIGINT LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    created BIGINT;
BEGIN
    INSERT INTO postroom_payloads (payload_id, digest, source, provider, headers, encoding, bytes, body, received_at)
    SELECT n.payload_id, n.digest, n.source, n.provider, n.headers, n.encoding, n.bytes, n.body, n.received_at FROM (
        SELECT nextval('postroom_payload_numbers') AS payload_id, given.* FROM (
            SELECT p.* FROM unnest(digests, sources, providers, header_lists, encodings, lengths, bodies, accepted) WITH ORDINALITY
                AS p (digest, source, provider, headers, encoding, bytes, body, received_at, place)
            ORDER BY p.place
        ) given OFFSET 0
    ) n ORDER BY n.digest
    ON CONFLICT (digest) DO NOTHING;
    GET DIAGNOSTICS created = ROW_COUNT;
    RETURN created;
END $$;

-- Details of messages. Another program may have deleted a message before; then the details of its first life are in the way.
CREATE OR REPLACE FUNCTION postroom_bring_details(
    ids TEXT[], provider_ids TEXT[], sources TEXT[], kinds TEXT[], field_lists TEXT[], brought_by BYTEA[]
) RETURNS VOID LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    INSERT INTO postroom_details (message_id, provider_id, source, kind, fields, payload_id)
    SELECT d.message_id, d.provider_id, d.source, d.kind, d.fields,
           (SELECT p.payload_id FROM postroom_payloads p WHERE p.digest = d.digest)
    FROM unnest(ids, provider_ids, sources, kinds, field_lists, brought_by)
        AS d (message_id, provider_id, source, kind, fields, digest)
    ORDER BY d.message_id
    ON CONFLICT (message_id) DO UPDATE SET
        provider_id = excluded.provider_id, source = excluded.source, kind = excluded.kind,
        fields = excluded.fields, payload_id = excluded.payload_id;
END $$;

-- Stores records of what became of sent messages, raises the state of each message and recipient where a new one is greater, and
-- notes what that changes in the counts. `ranks` are the states, the least first. Answers the places of the new records.
CREATE OR REPLACE FUNCTION postroom_bring_statuses(
    ids TEXT[], recipients TEXT[], states TEXT[], times TEXT[], errors TEXT[], provider_ids TEXT[], sources TEXT[],
    accepted TEXT[], brought_by BYTEA[], attempt BIGINT, ranks TEXT[]
) RETURNS SETOF BIGINT LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN QUERY
    WITH given AS MATERIALIZED (
        SELECT s.* FROM unnest(ids, recipients, states, times, errors, provider_ids, sources, accepted, brought_by) WITH ORDINALITY
            AS s (message_id, recipient, state, at, error, provider_id, source, received_at, digest, place)
    ), new AS (
        INSERT INTO postroom_statuses (message_id, recipient, state, at, error, provider_id, source, received_at,
                                       payload_id, ingest_id)
        SELECT g.message_id, g.recipient, g.state, g.at, g.error, g.provider_id, g.source, g.received_at,
               (SELECT p.payload_id FROM postroom_payloads p WHERE p.digest = g.digest), attempt
        FROM given g ORDER BY g.message_id, g.recipient, g.state
        ON CONFLICT (message_id, recipient, state) DO NOTHING
        RETURNING message_id, recipient, state
    ), raised AS (
        INSERT INTO postroom_states AS known (message_id, recipient, state)
        SELECT DISTINCT ON (n.message_id, n.recipient) n.message_id, n.recipient, n.state FROM new n
        ORDER BY n.message_id, n.recipient, array_position(ranks, n.state) DESC
        ON CONFLICT (message_id, recipient) DO UPDATE SET previous = known.state, state = excluded.state
            WHERE array_position(ranks, excluded.state) > array_position(ranks, known.state)
        RETURNING state, previous
    ), changed AS (
        INSERT INTO postroom_state_changes (state, messages)
        SELECT changes.state, sum(changes.change) FROM (
            SELECT r.state, 1 AS change FROM raised r
            UNION ALL SELECT r.previous, -1 FROM raised r WHERE r.previous IS NOT NULL
        ) changes GROUP BY changes.state HAVING sum(changes.change) <> 0
    )
    SELECT g.place FROM new n JOIN given g USING (message_id, recipient, state);
END $$;

-- Stores events. Answers the places of the new ones.
CREATE OR REPLACE FUNCTION postroom_bring_events(
    keys TEXT[], sources TEXT[], providers TEXT[], kinds TEXT[], bodies TEXT[], accepted TEXT[], brought_by BYTEA[], attempt BIGINT
) RETURNS SETOF BIGINT LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN QUERY
    WITH given AS MATERIALIZED (
        SELECT e.* FROM unnest(keys, sources, providers, kinds, bodies, accepted, brought_by) WITH ORDINALITY
            AS e (event_key, source, provider, kind, body, received_at, digest, place)
    ), numbered AS MATERIALIZED (
        SELECT nextval('postroom_event_numbers') AS event_id, fresh.* FROM (
            SELECT g.* FROM given g
            WHERE NOT EXISTS (SELECT 1 FROM postroom_events known WHERE known.event_key = g.event_key) ORDER BY g.place
        ) fresh
    ), new AS (
        INSERT INTO postroom_events (event_id, event_key, source, provider, kind, body, received_at, payload_id, ingest_id)
        SELECT n.event_id, n.event_key, n.source, n.provider, n.kind, n.body, n.received_at,
               (SELECT p.payload_id FROM postroom_payloads p WHERE p.digest = n.digest), attempt
        FROM numbered n ORDER BY n.event_key
        ON CONFLICT (event_key) DO NOTHING
        RETURNING event_key
    )
    SELECT g.place FROM new n JOIN given g USING (event_key);
END $$;

-- Filing a batch of messages, as before, but heard whatever the server's settings hide.
CREATE OR REPLACE FUNCTION postroom_file(
    ids TEXT[], senders TEXT[], recipients TEXT[], times TEXT[], texts TEXT[], exact BYTEA[], accepted TEXT[],
    attempt BIGINT, waits_for TEXT
) RETURNS SETOF BIGINT LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    first BIGINT;
BEGIN
    -- For this transaction only, its commit included: one that gives up waiting for a standby says so by a warning and nothing else.
    PERFORM set_config('synchronous_commit', waits_for, true), set_config('client_min_messages', 'warning', true);
    SELECT arrival_base + (pg_current_xact_id()::text::bigint << 20) INTO STRICT first FROM postroom_state;
    RETURN QUERY
        INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, text_exact, created_at, ingest_id, arrival)
        SELECT m.id, m.sender, m.recipient, m.at, m.content, m.bytes, m.created, attempt, first + m.place - 1
        FROM unnest(ids, senders, recipients, times, texts, exact, accepted)
            WITH ORDINALITY AS m (id, sender, recipient, at, content, bytes, created, place)
        ON CONFLICT (message_id) DO NOTHING
        RETURNING messages.arrival;
END $$;
