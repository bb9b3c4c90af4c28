#!/usr/bin/env bash
# From a fresh clone to a running service with one stored message: builds, starts, tests, and stays in the foreground.
#
#   ./quickstart.sh           until Ctrl-C
#   ./quickstart.sh --check   the same, then stops; exit code 0 means that every step worked
#   ./quickstart.sh --empty   until Ctrl-C, without the test message: the inbox stays unchanged
#
# Settings come from the environment, then from .env, which is created with a random secret if it does not exist.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly log_file=data/postroom.log
readonly container=postroom-quickstart
readonly ready_seconds_max=1800 # the first start on a large database of the original service builds indices
service=""                      # process id, once it runs
follower=""
secret_in_environment="${WEBHOOK_SECRET+set}${WEBHOOK_SECRET_FILE+set}"
settings=(WEBHOOK_SECRET API_TOKEN LOG_LEVEL MAX_BODY_BYTES) # passed to the container, plus all that .env names
interrupted=130                 # exit code of Ctrl-C; 0 once every step worked

say() { printf '%s\n' "$*"; }
fail() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }

main() {
  local check=false empty=false
  case "${1:-}" in
    "") ;;
    --check) check=true ;;
    --empty) empty=true ;;
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) fail "unknown argument '$1'; see --help" ;;
  esac
  choose_tool
  (umask 077 && mkdir -p data)
  read_env
  make_secret
  export DATABASE_URL="${DATABASE_URL:-sqlite:///data/app.db}" PORT="${PORT:-8000}"
  check_port
  build
  start
  $empty || try_out
  if $check; then
    stop
    say "It works. The service is stopped."
    exit 0
  fi
  say ""
  say "Postroom runs at $url; its documentation is at $url/docs"
  say "Reading is open to everyone who reaches this address unless API_TOKEN is set. Ctrl-C stops it. Its log ($log_file):"
  tail -n 0 -F "$log_file" 2>/dev/null &
  follower=$!
  interrupted=0
  wait_for_service
}

# cargo if installed, else Docker, else one line of advice.
choose_tool() {
  if command -v cargo >/dev/null; then
    command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null ||
      fail "cargo is installed, but no C compiler: install one (Debian and Ubuntu: apt-get install build-essential)"
    tool=cargo
  elif command -v docker >/dev/null && docker info >/dev/null 2>&1; then
    tool=docker
  else
    fail "install Rust from https://rustup.rs and a C compiler (Debian and Ubuntu: apt-get install build-essential), or Docker"
  fi
}

trim() {
  local text="${1#"${1%%[![:space:]]*}"}"
  printf '%s' "${text%"${text##*[![:space:]]}"}"
}

# Reads .env as data: lines KEY=VALUE, as Docker Compose reads them, without substitution. The environment overrides it, in
# either form: X and X_FILE are two names of one setting. Names of settings are in capitals, and the variables of
# this script are not.
read_env() {
  [ -f .env ] || return 0
  local line name raw value given
  given=" $(compgen -e | tr '\n' ' ') "
  while IFS= read -r line || [ -n "$line" ]; do
    line="${line%$'\r'}"
    [[ $line =~ ^[[:space:]]*(export[[:space:]]+)?([A-Z_][A-Z0-9_]*)[[:space:]]*=(.*)$ ]] || continue
    name="${BASH_REMATCH[2]}" raw="${BASH_REMATCH[3]}"
    [[ $given != *" ${name%_FILE} "* && $given != *" ${name%_FILE}_FILE "* ]] || continue
    value="$(trim "$raw")"
    case "$value" in
      \"*\"*) value="${value#\"}" value="${value%\"*}" ;;
      \'*\'*) value="${value#\'}" value="${value%\'*}" ;;
      *) value="$(trim "${raw%%[[:space:]]#*}")" ;;
    esac
    export "$name=$value"
    settings+=("$name")
  done < .env
}

# Creates a secret for this machine, unless there is one. Overwrites only an empty `WEBHOOK_SECRET=` in .env.
make_secret() {
  [ -z "$secret_in_environment${WEBHOOK_SECRET:-}${WEBHOOK_SECRET_FILE:-}" ] || return 0
  WEBHOOK_SECRET="$(od -An -tx1 -N32 /dev/urandom | tr -d ' \n')"
  export WEBHOOK_SECRET
  (
    umask 077
    if [ -f .env ]; then grep -Ev '^[[:space:]]*(export[[:space:]]+)?WEBHOOK_SECRET[[:space:]]*=' .env || true; fi > data/env.new
    printf 'WEBHOOK_SECRET=%s\n' "$WEBHOOK_SECRET" >> data/env.new
    mv data/env.new .env
  )
  say "Created a random WEBHOOK_SECRET in .env"
}

check_port() {
  if ! [[ $PORT =~ ^[1-9][0-9]{0,4}$ ]] || ((PORT > 65535)); then
    fail "PORT must be a number from 1 to 65535, not '$PORT'"
  fi
  case "${HOST:-0.0.0.0}" in
    0.0.0.0 | ::) host=127.0.0.1 url="http://localhost:$PORT" ;;
    *:*) host="$HOST" url="http://[$HOST]:$PORT" ;;
    *) host="$HOST" url="http://$HOST:$PORT" ;;
  esac
  if (exec 3<>"/dev/tcp/$host/$PORT") 2>/dev/null; then
    fail "port $PORT is in use; choose another: PORT=$((PORT % 65535 + 1)) ./quickstart.sh"
  fi
}

build() {
  say "Building with $tool; the first time takes some minutes"
  if [ "$tool" = cargo ]; then
    cargo build --release --locked || fail "the build failed; run 'rustup update' if Rust is too old"
    program="${CARGO_TARGET_DIR:-target}/release/postroom"
    [[ $program = /* ]] || program="./$program"
  else
    docker build -t postroom .
  fi
}

# The program's subcommands, with the settings of the service.
postroom() {
  if [ "$tool" = cargo ]; then "$program" "$@"; else docker exec -i "$container" /usr/local/bin/postroom "$@"; fi
}

# In a process group of its own, so that Ctrl-C stops it only once, through `stop`.
start() {
  (umask 077 && : >> "$log_file")
  trap 'stop; exit "$interrupted"' INT TERM HUP
  trap stop EXIT
  set -m
  if [ "$tool" = cargo ]; then
    inner_url="$url"
    "$program" serve >> "$log_file" 2>&1 &
  else
    # Inside, the port is always 8000 and ./data is /data.
    [ -z "${WEBHOOK_SECRET_FILE:-}${API_TOKEN_FILE:-}" ] || fail "with Docker, set secrets as variables, not as files"
    inner_url=http://127.0.0.1:8000
    local name options=()
    for name in "${settings[@]}" "${!POSTROOM_@}"; do
      case "$name" in DATABASE_URL | HOST | PORT) continue ;; esac
      [ -z "${!name+set}" ] || options+=(-e "$name")
    done
    docker run --rm --name "$container" --user "$(id -u):$(id -g)" --read-only --cap-drop ALL \
      -p "${HOST:-0.0.0.0}:$PORT:8000" -v "$PWD/data:/data" "${options[@]}" \
      -e DATABASE_URL=sqlite:////data/app.db postroom >> "$log_file" 2>&1 &
  fi
  service=$!
  set +m
  local seconds=0
  until postroom health --url "$inner_url" >/dev/null 2>&1; do
    kill -0 "$service" 2>/dev/null || { tail -n 1 "$log_file" >&2; fail "it did not start; the line above and $log_file have the reason"; }
    ((seconds < ready_seconds_max * 5)) || fail "it is not ready; $log_file may have the reason"
    seconds=$((seconds + 1))
    ((seconds % 50)) || say "Waiting until it is ready"
    sleep 0.2
  done
  say "It is ready"
}

stop() {
  trap - EXIT
  trap '' INT TERM HUP # ignore further signals during the stop
  if [ -n "$follower" ]; then kill "$follower" 2>/dev/null || true; fi
  if [ -n "$service" ] && kill -0 "$service" 2>/dev/null; then
    say ""
    say "Stopping"
    if [ "$tool" = cargo ]; then kill -TERM "$service"; else docker stop "$container" >/dev/null || true; fi
    wait "$service" || true
  fi
  service=""
}

wait_for_service() {
  local status=0
  wait "$service" || status=$?
  say "It ended by itself with exit code $status; $log_file has the reason" >&2
  service=""
  exit "$status"
}

# The tokens for reading, unchanged.
reading_tokens() {
  if [ -n "${API_TOKEN_FILE:-}" ]; then cat "$API_TOKEN_FILE"; else printf '%s\n' "${API_TOKEN:-}"; fi
}

# GET, with the available tool.
get() {
  local authorization=() line
  [ -z "$token" ] || authorization=(-H "Authorization: Bearer $token")
  if command -v curl >/dev/null; then
    curl -sS "${authorization[@]+"${authorization[@]}"}" "$url$1"
    return
  fi
  exec 3<>"/dev/tcp/$host/$PORT"
  printf 'GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n' "$1" "$host:$PORT" >&3
  [ -z "$token" ] || printf '%s\r\n' "${authorization[1]}" >&3
  printf '\r\n' >&3
  while IFS= read -r line <&3 && [ "$line" != $'\r' ]; do :; done
  cat <&3
  exec 3>&-
}

# Sends one signed message and lists it.
try_out() {
  local now id body
  now="$(date -u +%Y-%m-%dT%H:%M:%SZ)"
  id="quickstart-$now-$$"
  body='{"message_id":"'$id'","from":"+14155550123","to":"+14155550100","ts":"'$now'","text":"Hello from quickstart"}'
  say ""
  say "A signed message: POST $url/webhook"
  say "  $body"
  if command -v curl >/dev/null; then
    curl -sS -f -H 'Content-Type: application/json' -H "X-Signature: $(printf %s "$body" | postroom sign -)" \
      --data-binary "$body" "$url/webhook" | sed 's/^/  /'
    say ""
  else
    printf '%s\n' "$body" | postroom send - --url "$inner_url/webhook" | sed 's/^/  /'
  fi
  local tokens token listed stats
  tokens="$(reading_tokens)"
  token="$(trim "$(tr , '\n' <<< "$tokens" | grep -v '^[[:space:]]*sha256:' | head -n 1)")"
  if [ -n "$tokens" ] && [ -z "$token" ]; then
    say "It is stored. API_TOKEN contains only digests, so list it yourself:"
    say "  curl -H 'Authorization: Bearer …' '$url/messages?since=$now'"
    return
  fi
  say "It is in the list: GET $url/messages?since=$now"
  listed="$(get "/messages?since=$now")"
  stats="$(get /stats)"
  say "  $listed"
  [[ $listed == *"\"$id\""* ]] || fail "the message is not in the list"
  say "It is in the statistics: GET $url/stats"
  say "  $stats"
}

main "$@"
