//! The SQL of what providers tell beyond the six columns. Rows are written in the order of their keys, like messages, so that
//! batches which meet wait for each other in one order.

/// Begins a transaction that writes something, so that its commit waits for all that could be read before it, and is heard where it
/// gives up waiting. What it calls
/// is planned by way of the keys, however small a table is when the plan is made, and never compiled: since other ways count as
/// very dear then, the server would think that it pays.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
     SELECT set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true), \
     set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true), \
     set_config('idle_in_transaction_session_timeout', '30s', true), set_config('client_min_messages', 'warning', true), \
     pg_logical_emit_message(true, 'postroom', '')::text; SET LOCAL synchronous_commit = ";

/// What is stored already: of payloads their numbers, of statuses and events by which attempt.
pub(super) const LOOK: &str = "SELECT * FROM postroom_look($1, $2, $3, $4, $5)";

pub(in crate::store) const BRING_PAYLOADS: &str = "SELECT postroom_bring_payloads($1, $2, $3, $4, $5, $6, $7, $8)";
pub(super) const BRING_DETAILS: &str = "SELECT postroom_bring_details($1, $2, $3, $4, $5, $6)";
/// Answers the places of the new records.
pub(in crate::store) const BRING_STATUSES: &str =
    "SELECT postroom_bring_statuses($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)";
/// Answers the places of the new events.
pub(in crate::store) const BRING_EVENTS: &str = "SELECT postroom_bring_events($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// As `copy` does: what is there stays.
pub(in crate::store) const COPY_DETAILS: &str = "\
    INSERT INTO postroom_details (message_id, provider_id, source, kind, fields, payload_id)
    SELECT d.message_id, d.provider_id, d.source, d.kind, d.fields, p.payload_id
    FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[])
        AS d (message_id, provider_id, source, kind, fields, digest)
    LEFT JOIN postroom_payloads p ON p.digest = d.digest ORDER BY message_id
    ON CONFLICT (message_id) DO NOTHING";

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
