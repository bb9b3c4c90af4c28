//! The SQL that several parts share. Every statement is sent unnamed and with its types, in one round trip, so that it works
//! through poolers that give each transaction another connection.

/// What a server says of itself; then which functions it lacks that our statements need, and whether it has Citus.
pub(super) const SERVER: &str = "SELECT current_setting('server_version_num'), current_setting('server_encoding'), \
     pg_is_in_recovery(), current_setting('synchronous_commit'), current_setting('synchronous_standby_names'), \
     ARRAY(SELECT name FROM unnest(ARRAY['pg_current_xact_id', 'pg_current_snapshot', 'pg_snapshot_xmin', \
     'pg_snapshot_xmax', 'pg_logical_emit_message']) AS name WHERE name NOT IN (SELECT proname::text FROM pg_proc)), \
     (SELECT extversion FROM pg_extension WHERE extname = 'citus'), \
     current_setting('default_transaction_read_only')";

/// Places for rows within one transaction, as a power of two: an arrival number is the transaction's number, then the place.
pub(super) const ARRIVAL_BITS: u32 = 20;
/// Rows of ours in one transaction at most; the places behind are for rows of other programs.
pub(super) const BATCH_ROWS_MAX: usize = 1 << (ARRIVAL_BITS - 1);

/// Writes a batch. The setting holds for this transaction only, its commit included, so it reaches no other user of a pooler.
/// What comes back are the arrival numbers of the rows that were not there before.
pub(super) const INSERT: &str = "SELECT postroom_file($1, $2, $3, $4, $5, $6, $7, $8, $9)";

/// Reads back what a batch did not create.
pub(super) const STORED: &str = "SELECT message_id, from_msisdn, to_msisdn, ts, text, text_exact, ingest_id \
     FROM messages WHERE message_id = ANY($1)";

/// Writes a little, so that this transaction's commit waits as long as that of a message: whatever could be read before it
/// is as durable as it is by then.
pub(super) const FENCE: &str = "SELECT set_config('synchronous_commit', $1, true), set_config('client_min_messages', 'warning', true), \
     pg_logical_emit_message(true, 'postroom', '')::text";

/// Where counting and indexing have come to, and up to where every transaction has ended.
pub(super) const STATE: &str = "SELECT counted, messages, senders, s.packed, \
     arrival_base + (pg_snapshot_xmin(pg_current_snapshot())::text::bigint << 20), \
     EXISTS (SELECT 1 FROM postroom_gone_texts g WHERE g.arrival <= s.packed) \
     FROM postroom_state LEFT JOIN postroom_search s ON true";
/// What the counters do not tell, as rows `m` of sender, time and `n`: one for each row behind the watermark, and minus one for each that
/// they hold though it is gone.
pub(super) fn uncounted(counted: &str) -> String {
    format!(
        "(SELECT from_msisdn, ts, 1 AS n FROM messages WHERE arrival > {counted}
          UNION ALL SELECT from_msisdn, ts, -1 FROM postroom_gone WHERE arrival <= {counted}) m"
    )
}

/// Sees to it that the next numbers of arrival are above all that were given, and not below one that is known. Returns
/// what they begin at.
pub(super) const SETTLE: &str = "SELECT postroom_settle(postroom_cluster(), $1 - 1)";
/// Whether nobody can have done anything to the messages unnoticed, as far as the triggers tell.
pub(super) const WATCHED: &str = "SELECT postroom_watched()";
/// Makes the triggers anew. It waits for who writes, and others wait behind it, so it does not wait for long.
pub(super) const WATCH: &str = "SET LOCAL lock_timeout = '200ms'; SELECT postroom_watch()";
/// Gives numbers of arrival to rows that wait for them.
pub(super) const ADMIT: &str = "SELECT postroom_admit($1)";
/// Whether counters and search index are of these messages: the number of rows that the counters hold, in each of their
/// tables, and a sample of the index from both sides. Rows that came in below a watermark unnoticed are seen by it.
pub(super) const AGREES: &str = "\
    SELECT s.messages = (SELECT count(*) FROM messages WHERE arrival <= s.counted)
                        + (SELECT count(*) FROM postroom_gone WHERE arrival <= s.counted)
           AND s.messages = (SELECT coalesce(sum(messages), 0) FROM postroom_buckets WHERE level = 10)
           AND s.messages = (SELECT coalesce(sum(messages), 0) FROM postroom_senders)
           AND s.senders = (SELECT count(*) FROM postroom_senders)
           AND NOT EXISTS (
               SELECT 1 FROM (SELECT arrival FROM postroom_folded ORDER BY number DESC LIMIT 1000) f
               WHERE NOT EXISTS (SELECT 1 FROM messages m WHERE m.arrival = f.arrival)
                   AND NOT EXISTS (SELECT 1 FROM postroom_gone_texts g WHERE g.arrival = f.arrival))
           AND NOT EXISTS (
               SELECT 1 FROM (SELECT arrival, text FROM messages WHERE arrival <= i.packed ORDER BY arrival DESC LIMIT 1000) m
               WHERE m.text IS NOT NULL AND NOT EXISTS (SELECT 1 FROM postroom_folded f WHERE f.arrival = m.arrival))
    FROM postroom_state s, postroom_search i";
/// Throws the counters away. Deleted rather than truncated: whoever reads an older snapshot still finds it there.
pub(super) const FORGET_COUNTS: &str = "UPDATE postroom_state SET counted = 0, messages = 0, senders = 0; \
     DELETE FROM postroom_buckets; DELETE FROM postroom_senders; DELETE FROM postroom_sender_days; DELETE FROM postroom_gone";

/// Takes the counters, unless another replica has them: from where, and up to where rows are complete.
pub(super) const COUNT_FROM: &str = "SELECT counted, \
     arrival_base + (pg_snapshot_xmin(pg_current_snapshot())::text::bigint << 20), \
     EXISTS (SELECT 1 FROM postroom_gone) FROM postroom_state FOR UPDATE SKIP LOCKED";
/// The last arrival of a stretch, and its rows.
pub(super) const COUNT_TO: &str = "SELECT max(arrival), count(*) FROM \
     (SELECT arrival FROM messages WHERE arrival > $1 AND arrival < $2 ORDER BY arrival LIMIT $3) stretch";
/// Hours and days are sums of minutes, so each row is looked at once. Sorted, as the counters of senders are below: then
/// neighbours in the index are changed one after the other, and a page of it is read and logged once.
pub(super) const COUNT_BUCKETS: &str = "\
    WITH minutes AS MATERIALIZED (
        SELECT left(ts, 16) AS bucket, count(*) AS messages FROM messages WHERE arrival > $1 AND arrival <= $2 GROUP BY 1
    )
    INSERT INTO postroom_buckets (level, bucket, messages)
    SELECT level, left(bucket, level), sum(messages) FROM minutes, unnest(ARRAY[10, 13, 16]) AS level
    GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (level, bucket) DO UPDATE SET messages = postroom_buckets.messages + excluded.messages";
/// Answers how many senders are new: only a row that was inserted has no deleting transaction.
pub(super) const COUNT_SENDERS: &str = "\
    WITH days AS MATERIALIZED (
        SELECT from_msisdn, left(ts, 10) AS bucket, count(*) AS messages FROM messages
        WHERE arrival > $1 AND arrival <= $2 GROUP BY 1, 2
    ), by_day AS (
        INSERT INTO postroom_sender_days (from_msisdn, bucket, messages)
        SELECT from_msisdn, bucket, messages FROM days ORDER BY 1, 2
        ON CONFLICT (from_msisdn, bucket) DO UPDATE SET messages = postroom_sender_days.messages + excluded.messages
    ), counted AS (
        INSERT INTO postroom_senders (from_msisdn, messages)
        SELECT from_msisdn, sum(messages) FROM days GROUP BY 1 ORDER BY 1
        ON CONFLICT (from_msisdn) DO UPDATE SET messages = postroom_senders.messages + excluded.messages
        RETURNING (xmax = 0) AS is_new
    )
    SELECT count(*) FILTER (WHERE is_new) FROM counted";
/// Forgets rows that were gone before they were counted, and so never will be.
pub(super) const GONE_UNCOUNTED: &str = "DELETE FROM postroom_gone WHERE arrival > $1";
/// Takes some rows that are gone from the counters that hold them. Answers how many, and how many senders have no row left.
pub(super) const COUNT_GONE: &str = "\
    WITH taken AS MATERIALIZED (
        DELETE FROM postroom_gone WHERE ctid = ANY(ARRAY(SELECT ctid FROM postroom_gone WHERE arrival <= $1 ORDER BY arrival LIMIT $2))
        RETURNING from_msisdn, ts
    ), buckets AS MATERIALIZED (
        SELECT level::smallint, left(ts, level) AS bucket, count(*) AS n FROM taken, unnest(ARRAY[10, 13, 16]) AS level GROUP BY 1, 2
    ), less AS (
        UPDATE postroom_buckets b SET messages = b.messages - t.n FROM buckets t
        WHERE b.level = t.level AND b.bucket = t.bucket AND b.messages > t.n
    ), none AS (
        DELETE FROM postroom_buckets b USING buckets t WHERE b.level = t.level AND b.bucket = t.bucket AND b.messages <= t.n
    ), days AS MATERIALIZED (
        SELECT from_msisdn, left(ts, 10) AS bucket, count(*) AS n FROM taken GROUP BY 1, 2
    ), less_by_day AS (
        UPDATE postroom_sender_days d SET messages = d.messages - t.n FROM days t
        WHERE d.from_msisdn = t.from_msisdn AND d.bucket = t.bucket AND d.messages > t.n
    ), none_by_day AS (
        DELETE FROM postroom_sender_days d USING days t
        WHERE d.from_msisdn = t.from_msisdn AND d.bucket = t.bucket AND d.messages <= t.n
    ), senders AS MATERIALIZED (
        SELECT from_msisdn, sum(n)::bigint AS n FROM days GROUP BY 1
    ), less_by_sender AS (
        UPDATE postroom_senders s SET messages = s.messages - t.n FROM senders t
        WHERE s.from_msisdn = t.from_msisdn AND s.messages > t.n
    ), none_by_sender AS (
        DELETE FROM postroom_senders s USING senders t WHERE s.from_msisdn = t.from_msisdn AND s.messages <= t.n RETURNING 1
    )
    SELECT (SELECT count(*) FROM taken), (SELECT count(*) FROM none_by_sender)";
pub(super) const COUNT_TOTALS: &str = "UPDATE postroom_state SET counted = $1, messages = messages + $2, \
     senders = senders + $3";

/// Takes the search index, unless another replica has it.
pub(super) const INDEX_FROM: &str = "SELECT packed, (SELECT arrival_base FROM postroom_state) \
     + (pg_snapshot_xmin(pg_current_snapshot())::text::bigint << 20), texts, EXISTS (SELECT 1 FROM postroom_gone_texts) FROM postroom_search FOR UPDATE SKIP LOCKED";
/// How many rows wait for it, as far as that matters, and the bytes of their texts.
pub(super) const INDEX_WAITING: &str = "SELECT count(*), coalesce(sum(octet_length(text)), 0) FROM \
     (SELECT text FROM messages WHERE arrival > $1 AND arrival < $2 LIMIT $3) waiting";
pub(super) const INDEX_ROWS: &str = "SELECT arrival, from_msisdn, ts, text, text_exact FROM messages \
     WHERE arrival > $1 AND arrival < $2 ORDER BY arrival LIMIT $3";
/// The first rows of a statement on `messages` in the order of arrival, until their texts have more bytes than that.
pub(in crate::store) fn within_bytes(select: &str, bytes_max: i64) -> String {
    format!(
        "SELECT * FROM (
             SELECT asked.*, sum(octet_length(text)) OVER (ORDER BY arrival ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS behind
             FROM ({select}) asked
         ) summed WHERE coalesce(behind, 0) <= {bytes_max} ORDER BY arrival"
    )
}
pub(super) const INDEX_TEXTS: &str = "INSERT INTO postroom_folded (number, arrival, from_msisdn, ts, folded) \
     SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::bytea[]) RETURNING number, ctid";
/// A chunk that has places gets more behind them.
pub(super) const NOTE_PLACES: &str = "INSERT INTO postroom_places (chunk, places) \
     SELECT * FROM unnest($1::bigint[], $2::bytea[]) ORDER BY 1 \
     ON CONFLICT (chunk) DO UPDATE SET places = postroom_places.places || excluded.places";
pub(super) const PLACES: &str = "SELECT places FROM postroom_places WHERE chunk BETWEEN $1 AND $2 ORDER BY chunk";
pub(super) const INDEX_STRETCH: &str = "INSERT INTO postroom_stretches (level, last) VALUES (0, $1)";
pub(super) const INDEX_RUNS: &str = "INSERT INTO postroom_runs (level, run, last, texts, numbers) \
     SELECT 0, run, $1, texts, numbers FROM unnest($2::bigint[], $3::int[], $4::bytea[]) AS r (run, texts, numbers)";
/// The same with texts that were not indexed.
pub(super) const GONE_UNINDEXED: &str = "DELETE FROM postroom_gone_texts WHERE arrival > $1";
/// Takes some texts out that are gone and indexed, until they have so many bytes. Answers them; what was never there is null.
pub(super) const TAKE_OUT: &str = "\
    WITH gone AS MATERIALIZED (
        SELECT g.ctid AS place, sum(octet_length(f.folded)) OVER (ORDER BY g.arrival ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS behind
        FROM (SELECT ctid, arrival FROM postroom_gone_texts WHERE arrival <= $1 ORDER BY arrival LIMIT $2) g
        LEFT JOIN postroom_folded f ON f.arrival = g.arrival
    ), taken AS MATERIALIZED (
        DELETE FROM postroom_gone_texts WHERE ctid = ANY(ARRAY(SELECT place FROM gone WHERE coalesce(behind, 0) <= $3)) RETURNING arrival
    ), removed AS (
        DELETE FROM postroom_folded f USING taken t WHERE f.arrival = t.arrival RETURNING f.arrival, f.folded
    )
    SELECT r.folded FROM taken t LEFT JOIN removed r ON r.arrival = t.arrival";
pub(super) const LOSE_RUNS: &str = "INSERT INTO postroom_run_losses (run, texts) SELECT * FROM unnest($1::bigint[], $2::bigint[]) \
     ON CONFLICT (run) DO UPDATE SET texts = postroom_run_losses.texts + excluded.texts";
pub(super) const TAKEN_OUT: &str = "UPDATE postroom_search SET removed = removed + $1";
pub(super) const INDEXED: &str = "UPDATE postroom_search SET packed = $1, texts = texts + $2";

/// The lowest level with enough stretches, and the last of those that are merged.
pub(super) const MERGE_DUE: &str = "SELECT level, (array_agg(last ORDER BY last))[$1] FROM postroom_stretches \
     WHERE level < $2 GROUP BY level HAVING count(*) >= $1 ORDER BY level LIMIT 1";
/// Moves some rows of these stretches into the next level, one for each run: their lists one behind the other. Where a run's rows
/// are moved in two pieces it has two there, which are told apart by the last stretch of each.
pub(super) const MERGE_PIECE: &str = "\
    WITH first AS (
        SELECT run, last, octet_length(numbers) AS bytes FROM postroom_runs
        WHERE level = $1 AND last <= $2 ORDER BY run, last LIMIT $3
    ), piece AS (
        SELECT run, last FROM (SELECT run, last, bytes, sum(bytes) OVER (ORDER BY run, last) AS upto FROM first) measured
        WHERE upto - bytes < $4
    ), gone AS (
        DELETE FROM postroom_runs r USING piece p WHERE r.level = $1 AND r.run = p.run AND r.last = p.last
        RETURNING r.run, r.last, r.texts, r.numbers
    ), merged AS (
        INSERT INTO postroom_runs (level, run, last, texts, numbers)
        SELECT $1 + 1, run, max(last), sum(texts), string_agg(numbers, ''::bytea ORDER BY last) FROM gone GROUP BY run
    )
    SELECT count(*) FROM piece";
/// All rows of these stretches were moved.
pub(super) const MERGED: &str = "WITH gone AS (DELETE FROM postroom_stretches WHERE level = $1 AND last <= $2) \
     INSERT INTO postroom_stretches (level, last) VALUES ($1 + 1, $2)";

/// Throws the search index away. Deleted rather than truncated: whoever reads an older snapshot still finds it there.
pub(super) const FORGET_INDEX: &str = "UPDATE postroom_search SET packed = 0, texts = 0, removed = 0; DELETE FROM postroom_folded; \
     DELETE FROM postroom_gone_texts; DELETE FROM postroom_run_losses; DELETE FROM postroom_places; DELETE FROM postroom_stretches; DELETE FROM postroom_runs";
/// Removes the search index of schema 2, which replicas of an earlier build search by.
pub(super) const FORGET_FORMER_INDEX: &str = "DROP TABLE IF EXISTS postroom_texts";
/// How many indexed texts have each of some runs, the rarest first.
pub(super) const RUN_COUNTS: &str = "SELECT run, \
     (sum(texts) - coalesce((SELECT l.texts FROM postroom_run_losses l WHERE l.run = r.run), 0))::bigint FROM postroom_runs r \
     WHERE level = ANY('{0,1,2,3}') AND run = ANY($1) GROUP BY run ORDER BY 2";
/// Which have a run, in their order.
pub(super) const RUN_NUMBERS: &str = "SELECT numbers FROM postroom_runs \
     WHERE level = ANY('{0,1,2,3}') AND run = $1 ORDER BY last";

/// Whether the table is there, whether writes can be taken, and what commits would wait for.
pub(super) const HEALTH: &str = "SELECT to_regclass('messages') IS NOT NULL AND to_regclass('postroom_state') IS NOT NULL, \
     pg_is_in_recovery(), current_setting('synchronous_standby_names')";
/// Writes as much as a small batch, of what does not compress: a commit of nothing would succeed on a full disk.
pub(super) const PROBE: &str = "WITH filler AS (SELECT string_agg(md5(random()::text), '') AS text \
     FROM generate_series(1, 4096)), away AS (DELETE FROM postroom_probe) \
     INSERT INTO postroom_probe SELECT convert_to(text, 'UTF8') FROM filler \
     WHERE set_config('synchronous_commit', $1, true) <> '' AND set_config('client_min_messages', 'warning', true) <> ''";
/// What `/observer` tells of the database: bytes, and rows that wait to be counted and indexed.
pub(super) const GAUGES: &str = "\
    SELECT (SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
            WHERE oid IN (to_regclass('messages'), to_regclass('postroom_folded'), to_regclass('postroom_runs'), to_regclass('postroom_stretches'), to_regclass('postroom_places'),
                          to_regclass('postroom_texts'), to_regclass('postroom_gone'), to_regclass('postroom_gone_texts'),
                          to_regclass('postroom_run_losses'), to_regclass('postroom_buckets'),
                          to_regclass('postroom_senders'), to_regclass('postroom_sender_days'),
                          to_regclass('postroom_details'), to_regclass('postroom_payloads'), to_regclass('postroom_events'),
                          to_regclass('postroom_statuses'), to_regclass('postroom_states'))),
           (SELECT count(*) FROM messages WHERE arrival > (SELECT counted FROM postroom_state)),
           (SELECT count(*) FROM messages WHERE arrival > (SELECT packed FROM postroom_search))";

/// Up to where every transaction that could add a row has ended.
pub(in crate::store) const HORIZON: &str = "SELECT arrival_base \
     + (pg_snapshot_xmin(pg_current_snapshot())::text::bigint << 20) FROM postroom_state";
/// Begins the transaction of a stretch that is copied.
pub(in crate::store) const COPY_BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = 0; \
     CREATE TEMPORARY TABLE IF NOT EXISTS postroom_incoming (place BIGINT, message_id TEXT COLLATE \"C\", \
     from_msisdn TEXT, to_msisdn TEXT, ts TEXT, created_at TEXT, text TEXT, text_exact BYTEA) ON COMMIT DELETE ROWS";
pub(in crate::store) const COPY_IN: &str = "COPY postroom_incoming \
     (place, message_id, from_msisdn, to_msisdn, ts, created_at, text, text_exact) FROM STDIN";
/// Sorted like every batch, so that it waits for those of running replicas and never in a circle with them.
pub(in crate::store) const COPY_INSERT: &str = "\
    WITH first AS MATERIALIZED (SELECT postroom_first_arrival() AS number)
    INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, created_at, text, text_exact, arrival)
    SELECT i.message_id, i.from_msisdn, i.to_msisdn, i.ts, i.created_at, i.text, i.text_exact, first.number + i.place
    FROM postroom_incoming i, first ORDER BY i.message_id
    ON CONFLICT (message_id) DO NOTHING";
pub(in crate::store) const COPY_POSITION: &str = "INSERT INTO postroom_copies (source, position) VALUES ($1, $2) \
     ON CONFLICT (source) DO UPDATE SET position = excluded.position";
