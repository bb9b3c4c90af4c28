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
# The providers in the order of SCHEMES: the first byte of an input of `parse` and `verify` is the place of one.
kinds=(postroom whatsapp twilio standard telegram waha evolution generic 360dialog vonage messagebird bird line slack telnyx plivo github stripe)
# Puts the byte of a provider before each file of a folder.
seed() {
  local kind=$1 from=$2 to=$3 file
  for file in "$from"/*; do
    if [ -f "$file" ]; then
      { printf '%b' "\\x$(printf %02x "$kind")"; cat "$file"; } > "$to/$kind-$(basename "$file")"
    fi
  done
}
for target in "${targets[@]}"; do
  seeds=()
  if [ -d "fuzz/corpus/$target" ]; then seeds+=("fuzz/corpus/$target"); fi
  mkdir -p "fuzz/target/corpus/$target" "fuzz/target/seeds/$target"
  for kind in "${!kinds[@]}"; do
    case $target in
      parse)
        seed "$kind" "testdata/providers/${kinds[$kind]}" "fuzz/target/seeds/$target"
        seed "$kind" "fuzz/corpus/parse_${kinds[$kind]}" "fuzz/target/seeds/$target" ;;
      verify) seed "$kind" fuzz/corpus/verify "fuzz/target/seeds/$target" ;;
    esac
  done
  seeds+=("fuzz/target/seeds/$target")
  echo "== $target"
  cargo +nightly fuzz run "$target" "fuzz/target/corpus/$target" "${seeds[@]}" -- \
    -max_total_time="${SECONDS_EACH:-60}" -max_len=4096 -timeout=10
done
