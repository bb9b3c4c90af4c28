//! The SQL of what providers tell beyond the six columns. Rows are written in the order of their keys, like messages, so that
//! batches which meet wait for each other in one order.

/// Begins a transaction that writes something, so that its commit waits for all that could be read before it.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
     SET LOCAL idle_in_transaction_session_timeout = '30s'; \
     SELECT pg_logical_emit_message(true, 'postroom', '')::text; SET LOCAL synchronous_commit = ";

/// What is stored already: of payloads their numbers, of statuses and events by which attempt.
pub(super) const LOOK: &str = "\
    SELECT 0, g.place, k.payload_id FROM unnest($1::bytea[]) WITH ORDINALITY AS g (digest, place)
    JOIN postroom_payloads k ON k.digest = g.digest
    UNION ALL
    SELECT 1, g.place, k.ingest_id
    FROM unnest($2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS g (message_id, recipient, state, place)
    JOIN postroom_statuses k ON (k.message_id, k.recipient, k.state) = (g.message_id, g.recipient, g.state)
    UNION ALL
    SELECT 2, g.place, k.ingest_id FROM unnest($5::text[]) WITH ORDINALITY AS g (event_key, place)
    JOIN postroom_events k ON k.event_key = g.event_key";

pub(in crate::store) const INSERT_PAYLOADS: &str = "\
    WITH numbered AS MATERIALIZED (
        SELECT nextval('postroom_payload_numbers') AS payload_id, given.* FROM (
            SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::bytea[],
                                 $8::text[]) WITH ORDINALITY
                AS p (digest, source, provider, headers, encoding, bytes, body, received_at, place)
            ORDER BY place
        ) given
    )
    INSERT INTO postroom_payloads (payload_id, digest, source, provider, headers, encoding, bytes, body, received_at)
    SELECT payload_id, digest, source, provider, headers, encoding, bytes, body, received_at FROM numbered ORDER BY digest
    ON CONFLICT (digest) DO NOTHING";
pub(in crate::store) const PAYLOAD_NUMBERS: &str = "SELECT g.place, k.payload_id \
     FROM unnest($1::bytea[]) WITH ORDINALITY AS g (digest, place) JOIN postroom_payloads k ON k.digest = g.digest";

/// Another program may have deleted a message before; then the details of its first life are in the way.
pub(super) const INSERT_DETAILS: &str = "\
    INSERT INTO postroom_details (message_id, provider_id, source, kind, fields, payload_id)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
        AS d (message_id, provider_id, source, kind, fields, payload_id) ORDER BY message_id
    ON CONFLICT (message_id) DO UPDATE SET
        provider_id = excluded.provider_id, source = excluded.source, kind = excluded.kind,
        fields = excluded.fields, payload_id = excluded.payload_id";

/// As `copy` does: what is there stays.
pub(in crate::store) const COPY_DETAILS: &str = "\
    INSERT INTO postroom_details (message_id, provider_id, source, kind, fields, payload_id)
    SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[])
        AS d (message_id, provider_id, source, kind, fields, payload_id) ORDER BY message_id
    ON CONFLICT (message_id) DO NOTHING";

/// Stores records, raises the state of each message and recipient where a new one is greater, and notes what that changes in the
/// counts. $11 are the states, the least first. Answers the places of the new records.
pub(in crate::store) const INSERT_STATUSES: &str = "\
    WITH given AS MATERIALIZED (
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                             $9::bigint[]) WITH ORDINALITY
            AS s (message_id, recipient, state, at, error, provider_id, source, received_at, payload_id, place)
    ), new AS (
        INSERT INTO postroom_statuses (message_id, recipient, state, at, error, provider_id, source, received_at,
                                       payload_id, ingest_id)
        SELECT message_id, recipient, state, at, error, provider_id, source, received_at, payload_id, $10
        FROM given ORDER BY message_id, recipient, state
        ON CONFLICT (message_id, recipient, state) DO NOTHING
        RETURNING message_id, recipient, state
    ), raised AS (
        INSERT INTO postroom_states AS known (message_id, recipient, state)
        SELECT DISTINCT ON (message_id, recipient) message_id, recipient, state FROM new
        ORDER BY message_id, recipient, array_position($11::text[], state) DESC
        ON CONFLICT (message_id, recipient) DO UPDATE SET previous = known.state, state = excluded.state
            WHERE array_position($11::text[], excluded.state) > array_position($11::text[], known.state)
        RETURNING state, previous
    ), changed AS (
        INSERT INTO postroom_state_changes (state, messages)
        SELECT state, sum(change) FROM (
            SELECT state, 1 AS change FROM raised
            UNION ALL SELECT previous, -1 FROM raised WHERE previous IS NOT NULL
        ) changes GROUP BY state HAVING sum(change) <> 0
    )
    SELECT given.place FROM new JOIN given USING (message_id, recipient, state)";

/// Answers the places of the new events.
pub(in crate::store) const INSERT_EVENTS: &str = "\
    WITH given AS MATERIALIZED (
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[])
            WITH ORDINALITY AS e (event_key, source, provider, kind, body, received_at, payload_id, place)
    ), numbered AS MATERIALIZED (
        SELECT nextval('postroom_event_numbers') AS event_id, fresh.* FROM (
            SELECT * FROM given
            WHERE NOT EXISTS (SELECT 1 FROM postroom_events known WHERE known.event_key = given.event_key) ORDER BY place
        ) fresh
    ), new AS (
        INSERT INTO postroom_events (event_id, event_key, source, provider, kind, body, received_at, payload_id, ingest_id)
        SELECT event_id, event_key, source, provider, kind, body, received_at, payload_id, $8
        FROM numbered ORDER BY event_key
        ON CONFLICT (event_key) DO NOTHING
        RETURNING event_key
    )
    SELECT given.place FROM new JOIN given USING (event_key)";

/// A body that came before is read again: what could not be read of it then, and can now, is no event any more.
pub(super) const FORGET_UNREADABLE: &str = "DELETE FROM postroom_events \
     WHERE kind = $1 AND payload_id = ANY($2::bigint[]) AND event_key <> ALL ($3::text[])";

/// Adds some changes to the counts of states. Several may do it at once, each with changes of its own.
pub(super) const FOLD_STATES: &str = "\
    WITH taken AS MATERIALIZED (
        SELECT change_id FROM postroom_state_changes ORDER BY change_id LIMIT $1 FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM postroom_state_changes changes USING taken WHERE changes.change_id = taken.change_id
        RETURNING changes.state, changes.messages
    ), folded AS (
        INSERT INTO postroom_state_counts AS known (state, messages)
        SELECT state, sum(messages) FROM gone GROUP BY state ORDER BY state
        ON CONFLICT (state) DO UPDATE SET messages = known.messages + excluded.messages
    )
    SELECT count(*) FROM gone";
pub(super) const STATE_COUNTS: &str = "SELECT state, sum(messages)::bigint FROM (
        SELECT state, messages FROM postroom_state_counts UNION ALL SELECT state, messages FROM postroom_state_changes
    ) counts GROUP BY state";
