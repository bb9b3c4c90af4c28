#!/bin/sh
# Runs the store-independent modules of the black-box tests once more, with every server on PostgreSQL, each on a
# database of its own. A test in them that concerns only a file declares that (`on_a_file`).
# `storage`, `faults`, `index` and `upgrade` are about files; `postgres` is about PostgreSQL and ran before.
command -v "${CARGO:-cargo}" > /dev/null || exit 1
ls /usr/lib/postgresql/*/bin/initdb > /dev/null 2>&1 || command -v initdb > /dev/null || [ -n "${TEST_POSTGRES_URL:-}${TEST_POSTGRES_BIN:-}" ] || {
  echo "PostgreSQL is not installed; the HTTP contract was tested on SQLite only"
  exit 0
}
POSTROOM_TEST_STORE=postgres exec "${CARGO:-cargo}" test --locked --test it -- --skip postgres:: \
  access:: api:: crash:: sources:: edges:: health:: logs:: messages:: metrics:: overload:: send:: stats:: webhook::
