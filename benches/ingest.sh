#!/usr/bin/env bash
# Measures durable ingest on this machine: the release program on a temporary file, `postroom send` beside it as the load.
# Prints a table: connections, messages a second, latency, CPU of the server per message, memory, bytes on disk per message.
#   MESSAGES=50000 CONNECTIONS="1 16 64 256" benches/ingest.sh
set -euo pipefail
cd "$(dirname "$0")/.."
messages=${MESSAGES:-50000}
connections=${CONNECTIONS:-1 16 64 256}
port=${BENCH_PORT:-18765}
cargo build --release --locked
program=$PWD/target/release/postroom
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$folder"' EXIT
export WEBHOOK_SECRET=bench

# Random ids, as providers make them; about 250 bytes a message; a few hundred senders.
awk -v n="$messages" 'BEGIN {
  srand(42)
  for (i = 0; i < n; i++) {
    sender = int(rand() * rand() * 500)
    printf "{\"message_id\":\"wamid.%08x%08x%06x\",\"from\":\"+9198765%05d\",\"to\":\"+14155550100\",", rand() * 4294967295, rand() * 4294967295, i, sender
    printf "\"ts\":\"2025-%02d-%02dT%02d:%02d:%02dZ\",", 1 + rand() * 12, 1 + rand() * 28, rand() * 24, rand() * 60, rand() * 60
    printf "\"text\":\"message %d, with as many words as people usually write when they ask where their order is and when it comes\"}\n", i
  }
}' > "$folder/messages.ndjson"

metric() { "$program" health --url "http://127.0.0.1:$port/metrics" | awk -v name="$1" '$1 == name {print $2}'; }

printf '%-12s %12s %9s %9s %9s %12s %10s %12s\n' connections msgs/s p50_ms p99_ms max_ms us_cpu/msg rss_mib bytes/msg
for count in $connections; do
  rm -f "$folder"/bench.db*
  DATABASE_URL="sqlite:///$folder/bench.db" HOST=127.0.0.1 PORT=$port "$program" serve > "$folder/log" &
  server=$!
  until "$program" health --url "http://127.0.0.1:$port" >/dev/null 2>&1; do sleep 0.1; done
  before=$(metric postroom_process_cpu_seconds_total)
  "$program" send "$folder/messages.ndjson" --url "http://127.0.0.1:$port/webhook" --concurrency "$count" --json > "$folder/summary" 2>/dev/null
  after=$(metric postroom_process_cpu_seconds_total)
  rss=$(awk '/VmHWM/ {print $2 / 1024}' "/proc/$server/status")
  kill "$server"; wait "$server" || true; server=
  bytes=$(stat -c %s "$folder/bench.db")
  field() { sed -E "s/.*\"$1\":([0-9.e+-]+).*/\1/" "$folder/summary"; }
  awk -v c="$count" -v rate="$(field rate)" -v p50="$(field p50)" -v p99="$(field p99)" -v max="$(field max)" -v n="$messages" \
    -v cpu="$(awk -v a="$after" -v b="$before" 'BEGIN {print a - b}')" -v rss="$rss" -v bytes="$bytes" \
    'BEGIN {printf "%-12d %12.0f %9.2f %9.2f %9.2f %12.1f %10.1f %12.0f\n", c, rate, p50, p99, max, cpu / n * 1e6, rss, bytes / n}'
done
