-- What a status says beside the state, and the message that an event is about. Functions of earlier replicas stay as they are.
ALTER TABLE postroom_statuses ADD COLUMN IF NOT EXISTS extra TEXT;
ALTER TABLE postroom_events ADD COLUMN IF NOT EXISTS message TEXT;

-- As before, with what else was said. `forms` are the ways in which a recipient may stand in what is stored already, its own first,
-- separated by U+001F: a message whose statuses began with another one keeps it, or it would be counted twice.
CREATE OR REPLACE FUNCTION postroom_bring_statuses(
    ids TEXT[], recipients TEXT[], states TEXT[], times TEXT[], errors TEXT[], provider_ids TEXT[], sources TEXT[],
    accepted TEXT[], extras TEXT[], brought_by BYTEA[], attempt BIGINT, ranks TEXT[], forms TEXT[]
) RETURNS SETOF BIGINT LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN QUERY
    WITH given AS MATERIALIZED (
        SELECT s.message_id, s.state, s.at, s.error, s.provider_id, s.source, s.received_at, s.extra, s.digest, s.place,
               coalesce((SELECT k.recipient FROM postroom_states k
                         WHERE k.message_id = s.message_id AND k.recipient = ANY (string_to_array(s.form_list, chr(31)))
                         ORDER BY (k.recipient = s.recipient) DESC LIMIT 1), s.recipient) AS recipient
        FROM unnest(ids, recipients, states, times, errors, provider_ids, sources, accepted, extras, brought_by, forms)
            WITH ORDINALITY AS s (message_id, recipient, state, at, error, provider_id, source, received_at, extra, digest,
                                  form_list, place)
    ), new AS (
        INSERT INTO postroom_statuses (message_id, recipient, state, at, error, provider_id, source, received_at, extra,
                                       payload_id, ingest_id)
        SELECT g.message_id, g.recipient, g.state, g.at, g.error, g.provider_id, g.source, g.received_at, g.extra,
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

-- As before, with the message that an event is about.
CREATE OR REPLACE FUNCTION postroom_bring_events(
    keys TEXT[], sources TEXT[], providers TEXT[], kinds TEXT[], bodies TEXT[], accepted TEXT[], messages_about TEXT[],
    brought_by BYTEA[], attempt BIGINT
) RETURNS SETOF BIGINT LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    RETURN QUERY
    WITH given AS MATERIALIZED (
        SELECT e.* FROM unnest(keys, sources, providers, kinds, bodies, accepted, messages_about, brought_by) WITH ORDINALITY
            AS e (event_key, source, provider, kind, body, received_at, message, digest, place)
    ), numbered AS MATERIALIZED (
        SELECT nextval('postroom_event_numbers') AS event_id, fresh.* FROM (
            SELECT g.* FROM given g
            WHERE NOT EXISTS (SELECT 1 FROM postroom_events known WHERE known.event_key = g.event_key) ORDER BY g.place
        ) fresh
    ), new AS (
        INSERT INTO postroom_events (event_id, event_key, source, provider, kind, body, received_at, message, payload_id, ingest_id)
        SELECT n.event_id, n.event_key, n.source, n.provider, n.kind, n.body, n.received_at, n.message,
               (SELECT p.payload_id FROM postroom_payloads p WHERE p.digest = n.digest), attempt
        FROM numbered n ORDER BY n.event_key
        ON CONFLICT (event_key) DO NOTHING
        RETURNING event_key
    )
    SELECT g.place FROM new n JOIN given g USING (event_key);
END $$;
