#!/usr/bin/env bash
# `postroom bench --database-url` on a PostgreSQL server that is created for this run and removed afterwards. It syncs to disk.
#
#   benches/postgres.sh --only ingest --rounds 3 --connections 64,256
#   benches/postgres.sh --only reads --rows 1000000
#
# Needs PostgreSQL's programs (Debian: postgresql).
set -euo pipefail
cd "$(dirname "$0")/.."
PROGRAM=${PROGRAM:-target/release/postroom}
[ -x "$PROGRAM" ] || cargo build --release --locked
PROGRAM=$(realpath "$PROGRAM")
BIN=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -1)
FOLDER=$(mktemp -d)
AS=()
if [ "$(id -u)" = 0 ]; then
  chown 65534:65534 "$FOLDER"
  AS=(setpriv --reuid=65534 --regid=65534 --clear-groups)
fi
finish() {
  (cd / && "${AS[@]}" "$BIN/pg_ctl" -D "$FOLDER/data" -m immediate stop > /dev/null 2>&1) || true
  rm -rf "$FOLDER"
}
trap finish EXIT
(
  cd /
  "${AS[@]}" "$BIN/initdb" -D "$FOLDER/data" -U postroom -A trust -E UTF8 --locale=C.UTF-8 > "$FOLDER/initdb.log"
  "${AS[@]}" "$BIN/pg_ctl" -D "$FOLDER/data" -l "$FOLDER/log" -w start > /dev/null \
    -o "-c listen_addresses= -c unix_socket_directories=$FOLDER -c max_wal_size=4GB -c shared_buffers=512MB -c max_connections=400"
)
PATH="$BIN:$PATH" "$PROGRAM" bench --database-url "postgres://postroom@/postgres?host=$FOLDER" "$@"
