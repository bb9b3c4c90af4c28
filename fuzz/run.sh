#!/usr/bin/env bash
# Fuzzes every target for SECONDS_EACH seconds (60 by default), or the named ones, beginning with the committed
# corpus and the samples of the providers. New inputs go to a folder that is not committed; a crash ends the run and leaves its
# input under fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo +nightly fuzz --version >/dev/null 2>&1 || {
  echo "fuzz: needs a nightly toolchain (rustup toolchain install nightly) and cargo-fuzz (cargo install cargo-fuzz)" >&2
  exit 1
}
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  mapfile -t targets < <(sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | grep -v '^postroom-fuzz$')
fi
cargo +nightly fuzz build
for target in "${targets[@]}"; do
  seeds=()
  for folder in "fuzz/corpus/$target" "fuzz/corpus/${target%%_*}" "testdata/providers/${target#parse_}"; do
    if [ -d "$folder" ]; then seeds+=("$folder"); fi
  done
  mkdir -p "fuzz/target/corpus/$target"
  echo "== $target"
  cargo +nightly fuzz run "$target" "fuzz/target/corpus/$target" "${seeds[@]}" -- \
    -max_total_time="${SECONDS_EACH:-60}" -max_len=4096 -timeout=10
done
