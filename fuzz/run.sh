#!/usr/bin/env bash
# Fuzzes every target for SECONDS_EACH seconds (60 by default), beginning with the committed corpus. New inputs go to a folder
# that is not committed; a crash ends the run and leaves its input under fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo +nightly fuzz --version >/dev/null 2>&1 || {
  echo "fuzz: needs a nightly toolchain (rustup toolchain install nightly) and cargo-fuzz (cargo install cargo-fuzz)" >&2
  exit 1
}
for target in body signature provider_body provider_signature query head; do
  mkdir -p "fuzz/target/corpus/$target"
  cargo +nightly fuzz run "$target" "fuzz/target/corpus/$target" "fuzz/corpus/$target" -- \
    -max_total_time="${SECONDS_EACH:-60}" -max_len=4096 -timeout=10
done
