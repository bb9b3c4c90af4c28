#!/bin/sh
# Makes PostgreSQL's programs available for the tests that start a server: installs Debian's package if possible, and
# otherwise prints what to install. The tests then skip what needs a server.
[ -n "${TEST_POSTGRES_URL:-}${TEST_POSTGRES_BIN:-}" ] && exit 0
ls /usr/lib/postgresql/*/bin/initdb > /dev/null 2>&1 && exit 0
command -v initdb > /dev/null && command -v pg_ctl > /dev/null && command -v psql > /dev/null && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update && apt-get install -y --no-install-recommends postgresql pgbouncer openssl; } > /tmp/install-postgresql.log 2>&1 && exit 0
  echo "PostgreSQL could not be installed (see /tmp/install-postgresql.log); the tests that need it are skipped"
  exit 0
fi
echo "PostgreSQL is not installed; the tests that need it are skipped (Debian: apt-get install postgresql)"
