#!/usr/bin/env bash
# Measures Postroom and alternatives to it, one after the other on this machine, all at the same durability: acknowledged
# data are on disk.
#
#   benches/peers/run.sh                  # three rounds of about five seconds each
#   ROUNDS=5 SECONDS_EACH=10 benches/peers/run.sh
#
# Installs what is missing: Redis (package redis-tools) and PostgreSQL by apt-get, if permitted; NATS, FastAPI and
# uvicorn from PyPI into a temporary folder. Every server listens on 127.0.0.1 only, on a port of its own, keeps its data in
# that folder, and is stopped at the end. Servers that the packages may have started are not touched and not used.
set -euo pipefail
cd "$(dirname "$0")/../.."

have() { command -v "$1" >/dev/null || ls /usr/lib/postgresql/*/bin/"$1" >/dev/null 2>&1; }
install() {
  echo "installing $1" >&2
  if [ "$(id -u)" = 0 ]; then apt-get install -y --no-install-recommends "$1" >/dev/null; else sudo apt-get install -y --no-install-recommends "$1" >/dev/null; fi
}
have redis-benchmark || install redis-tools
have pgbench || install postgresql

cargo build --release --locked
folder=$(mktemp -d "${PEERS_FOLDER:-${TMPDIR:-/tmp}}/postroom-peers.XXXXXX")
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check -r benches/peers/requirements.txt
"$folder/venv/bin/python" benches/peers/compare.py --folder "$folder" --program target/release/postroom \
  --rounds "${ROUNDS:-3}" --seconds "${SECONDS_EACH:-5}"
