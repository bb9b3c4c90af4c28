#!/usr/bin/env bash
# Ingest on PostgreSQL: messages per second of 1, 2 and 3 replicas, beside pgbench's single-row insertions on the same server in
# the same run. Then, with ROWS, how long reads take.
#
#   benches/postgres.sh                  # ROUNDS=3 SECONDS_EACH=5 CONNECTIONS=64
#   ROUNDS=0 ROWS=1000000 benches/postgres.sh   # only fills a table, and asks for pages, totals, searches and statistics
#
# Needs PostgreSQL's programs (Debian: postgresql) and curl. The cluster is made for this run and removed afterwards; it syncs to disk.
set -euo pipefail
cd "$(dirname "$0")/.."
PROGRAM=${PROGRAM:-target/release/postroom} ROUNDS=${ROUNDS:-3} SECONDS_EACH=${SECONDS_EACH:-5}
CONNECTIONS=${CONNECTIONS:-64} MESSAGES=${MESSAGES:-60000} ROWS=${ROWS:-0}
[ -x "$PROGRAM" ] || cargo build --release --locked
PROGRAM=$(realpath "$PROGRAM")
BIN=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
FOLDER=$(mktemp -d)
AS=()
if [ "$(id -u)" = 0 ]; then
  chown 65534:65534 "$FOLDER"
  AS=(setpriv --reuid=65534 --regid=65534 --clear-groups)
fi
replicas=()
finish() {
  for pid in "${replicas[@]}"; do kill "$pid" 2> /dev/null || true; done
  (cd / && "${AS[@]}" "$BIN/pg_ctl" -D "$FOLDER/data" -m immediate stop > /dev/null 2>&1) || true
  rm -rf "$FOLDER"
}
trap finish EXIT
(
  cd /
  "${AS[@]}" "$BIN/initdb" -D "$FOLDER/data" -U postroom -A trust -E UTF8 --locale=C.UTF-8 > "$FOLDER/initdb.log"
  "${AS[@]}" "$BIN/pg_ctl" -D "$FOLDER/data" -l "$FOLDER/log" -w start > /dev/null \
    -o "-c listen_addresses= -c unix_socket_directories=$FOLDER -c max_wal_size=4GB -c shared_buffers=512MB"
)
export PGHOST=$FOLDER PGUSER=postroom PGDATABASE=postgres WEBHOOK_SECRET=bench
sql() { "$BIN/psql" -XAtq -c "$1"; }
sql "CREATE TABLE single (id TEXT PRIMARY KEY, a TEXT, b TEXT, ts TEXT, text TEXT, created_at TEXT)"
cat > "$FOLDER/single.sql" << 'SQL'
\set n random(1, 1000000000000)
INSERT INTO single VALUES ('m' || :n, '+919876543210', '+14155550100', '2025-01-15T10:00:00Z', 'Hello', 'x') ON CONFLICT DO NOTHING;
SQL

# Starts a replica on a database, and sets `address`.
start() {
  local out=$FOLDER/replica.$RANDOM
  DATABASE_URL="postgres://postroom@/$1?host=$FOLDER" HOST=127.0.0.1 PORT=0 LOG_LEVEL=INFO \
    POSTROOM_POSTGRES_WRITERS=${WRITERS:-2} "$PROGRAM" > "$out" &
  replicas+=($!)
  until address=$(grep -o '"address":"[^"]*"' "$out" 2> /dev/null | head -1 | cut -d'"' -f4) && [ -n "$address" ]; do
    kill -0 $! && sleep 0.05
  done
}

# Messages per second of so many replicas on a fresh database.
measure() {
  local count=$1 round=$2 database=bench_$1_$2 senders=() started ended
  sql "CREATE DATABASE $database"
  local addresses=()
  for _ in $(seq "$count"); do start "$database"; addresses+=("$address"); done
  for at in $(seq 0 $((count - 1))); do
    awk -v n=$((MESSAGES / count)) -v r="$count-$round-$at" 'BEGIN { for (i = 0; i < n; i++) printf "{\"message_id\":\"m%s-%d-%d\",\"from\":\"+9198765%05d\",\"to\":\"+14155550100\",\"ts\":\"2025-01-%02dT10:%02d:00Z\",\"text\":\"Hello, number %d of the load\"}\n", r, (i * 7919) % 1000003, i, i % 977, 1 + i % 28, i % 60, i }' > "$FOLDER/load.$at"
  done
  started=$(date +%s.%N)
  for at in $(seq 0 $((count - 1))); do
    "$PROGRAM" send "$FOLDER/load.$at" --url "http://${addresses[$at]}/webhook" --concurrency $((CONNECTIONS / count)) > "$FOLDER/sent.$at" 2>&1 &
    senders+=($!)
  done
  for pid in "${senders[@]}"; do wait "$pid"; done
  ended=$(date +%s.%N)
  for pid in "${replicas[@]}"; do kill "$pid"; wait "$pid" || true; done
  replicas=()
  [ "$(PGDATABASE=$database "$BIN/psql" -XAtc 'SELECT count(*) FROM messages')" = $((MESSAGES / count * count)) ]
  awk -v n="$MESSAGES" -v a="$started" -v b="$ended" 'BEGIN { printf "%d\n", n / (b - a) }'
}

median() { printf '%s\n' "$@" | sort -n | sed -n "$((($# + 1) / 2))p"; }

single=() one=() two=() three=()
for round in $(seq "$ROUNDS"); do
  single+=("$("$BIN/pgbench" -n -M prepared -c "$CONNECTIONS" -j 2 -T "$SECONDS_EACH" -f "$FOLDER/single.sql" 2> /dev/null | sed -n 's/^tps = \([0-9]*\).*/\1/p')")
  one+=("$(measure 1 "$round")")
  two+=("$(measure 2 "$round")")
  three+=("$(measure 3 "$round")")
done
if [ "$ROUNDS" -gt 0 ]; then
  S=$(median "${single[@]}")
  echo "pgbench, one row a transaction, $CONNECTIONS clients: $S rows/s (${single[*]})"
  for name in one two three; do
    declare -n figures=$name
    M=$(median "${figures[@]}")
    echo "postroom, $name replica(s), $CONNECTIONS connections over HTTP: $M messages/s (${figures[*]}), $(awk -v m="$M" -v s="$S" 'BEGIN { printf "%.2f", m / s }') times pgbench"
  done
fi

[ "$ROWS" -gt 0 ] || exit 0
sql "CREATE DATABASE big"
start big
export PGDATABASE=big
for from in $(seq 0 250000 $((ROWS - 1))); do
  sql "INSERT INTO messages (message_id, from_msisdn, to_msisdn, ts, text, created_at)
       SELECT md5(i::text), '+9198765' || lpad((i % 20000)::text, 5, '0'), '+14155550100',
              to_char(timestamp '2025-01-01' + i * interval '3 seconds', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
              CASE WHEN i % 500 = 0 THEN '明天见 ' ELSE 'Your order ' END || md5((i * 31)::text) || ' is on its way to you', 'x'
       FROM generate_series($from, $((from + 249999))) i"
done
sql "VACUUM ANALYZE messages"
until [ "$(curl -s "$address/metrics" | awk '/^postroom_postgres_un/ { sum += $2 } END { print sum }')" = 0 ]; do sleep 1; done
sql "VACUUM ANALYZE"
sql "SELECT 'bytes per message, all tables and indices: ' || (SELECT sum(pg_total_relation_size(oid)) FROM pg_class
     WHERE relname IN ('messages', 'postroom_texts', 'postroom_buckets', 'postroom_senders', 'postroom_sender_days')) / $ROWS"
sql "SELECT relname || ': ' || pg_total_relation_size(oid) / $ROWS FROM pg_class WHERE relname IN ('messages', 'postroom_texts', 'postroom_texts_grams', 'postroom_messages_ts', 'postroom_messages_from', 'postroom_messages_arrival')"
reads() {
  local times
  times=$(for _ in $(seq 21); do curl -s -o /dev/null -w '%{time_total} %{http_code}\n' "http://$address$1"; done | sort -n)
  echo "$times" | awk -v what="$1" 'NR == 11 { median = $1 } { last = $1; status = $2 } END { printf "%-60s median %.1f ms, slowest %.1f ms (%s)\n", what, median * 1000, last * 1000, status }'
}
reads "/messages"
reads "/messages?offset=$((ROWS / 2))"
reads "/messages?offset=$((ROWS - 60))"
reads "/messages?since=2025-01-20T10:10:10Z"
reads "/messages?from=%2B919876500007"
reads "/messages?from=%2B919876500007&since=2025-01-10T00:00:00Z"
reads "/messages?order=arrival"
reads "/messages?q=zzzzzz"
reads "/messages?q=c4ca4238"
reads "/messages?q=%E6%98%8E%E5%A4%A9"
reads "/messages?q=order"
reads "/messages?q=order&total=bounded"
reads "/stats"
