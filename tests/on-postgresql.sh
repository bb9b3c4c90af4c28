#!/bin/sh
# Runs the black-box tests of the HTTP contract once more with every server on PostgreSQL, each on a database of its own. Left out is
# what looks into the SQLite file itself, or is about what only a file promises; `tests/it/postgres` has its counterparts.
command -v "${CARGO:-cargo}" > /dev/null || exit 1
ls /usr/lib/postgresql/*/bin/initdb > /dev/null 2>&1 || command -v initdb > /dev/null || [ -n "${TEST_POSTGRES_URL:-}" ] || {
  echo "PostgreSQL is not installed; the HTTP contract was tested on SQLite only"
  exit 0
}
POSTROOM_TEST_STORE=postgres exec "${CARGO:-cargo}" test --locked --test it -- \
  access:: api:: health:: logs:: messages:: metrics:: send:: stats:: webhook:: edges:: doors:: \
  --skip postgres:: \
  --skip doors::batches_under_way_at_a_kill \
  --skip doors::samples:: \
  --skip doors::tools::what_could_not_be_read \
  --skip doors::what_deleted_messages_left_behind \
  --skip edges::drain::a_message_that_waits_for_the_writer \
  --skip edges::drain::a_request_under_way_at_a_stop \
  --skip edges::limits::a_request_that_takes_too_long \
  --skip logs::a_client_that_does_not_wait \
  --skip health::a_table_made_anew \
  --skip health::without_its_table \
  --skip messages::cursors_lead_through_the_listing \
  --skip messages::limit_is_50_unless_told \
  --skip messages::rows_of_other_programs \
  --skip messages::whoever_follows_arrivals \
  --skip metrics::names_and_labels \
  --skip send::check_finds_what_is_wrong \
  --skip stats::other_programs \
  --skip webhook::a_signed_message_is_stored_field_by_field \
  --skip webhook::fields::texts_come_back_exactly
