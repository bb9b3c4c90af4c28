#!/usr/bin/env bash
# Checks a running service from outside: bash, curl, and openssl or postroom for the signature. Exit code 0 means success.
#
#   BASE_URL=http://localhost:8000 WEBHOOK_SECRET=… ./test_api.sh
#
# WEBHOOK_SECRET, API_TOKEN and PORT come from the environment, then from .env. The database need not be empty: every run
# uses its own ids, sender and text. Its five messages stay there.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 2

case "${1:-}" in
  "") ;;
  -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
  *) echo "test_api: unknown argument '$1'; see --help" >&2; exit 2 ;;
esac

# A value of .env, quoted or not, as Docker Compose and quickstart.sh read it.
from_env() {
  sed -nE "s/^[[:space:]]*(export[[:space:]]+)?$1[[:space:]]*=[[:space:]]*//p" .env 2>/dev/null | tail -n 1 |
    sed -E -e 's/^"(.*)".*$/\1/' -e t -e "s/^'(.*)'.*$/\1/" -e t -e 's/(^|[[:space:]]+)#.*$//; s/[[:space:]]+$//'
}

port="${PORT:-$(from_env PORT)}"
base_url="${BASE_URL:-http://localhost:${port:-8000}}"
base_url="${base_url%/}"
secret="${WEBHOOK_SECRET:-$(from_env WEBHOOK_SECRET)}"
tokens="${API_TOKEN:-$(from_env API_TOKEN)}"
token="$(tr , '\n' <<< "$tokens" | sed -e '/^[[:space:]]*sha256:/d' -e 's/^[[:space:]]*//; s/[[:space:]]*$//' | head -n 1)"
run="$(date +%s)-$$"
sender="+999$(date +%s)$((RANDOM % 10))"
passed=0 failed=0

for tool in curl sed; do
  command -v "$tool" >/dev/null || { echo "test_api: $tool is needed" >&2; exit 2; }
done
[ -n "$secret" ] || { echo "test_api: WEBHOOK_SECRET is not set" >&2; exit 2; }
[ -n "$token" ] || [ -z "$tokens" ] || { echo "test_api: API_TOKEN contains only digests; the script needs a plain token" >&2; exit 2; }

# The signature of exactly $1.
sign() {
  local postroom
  postroom="$(command -v postroom || ls target/release/postroom 2>/dev/null)"
  if [ -n "$postroom" ]; then
    printf %s "$1" | WEBHOOK_SECRET="$secret" "$postroom" sign -
  elif command -v openssl >/dev/null; then
    printf %s "$1" | openssl dgst -sha256 -hmac "$secret" | sed 's/.* //'
  else
    echo "test_api: openssl or postroom is needed to sign" >&2
    exit 2
  fi
}

# Sets $status and $body. Arguments as for curl; the last one is the path.
request() {
  local path="${*: -1}" answer
  answer="$(curl -sS -m 10 -w '\n%{http_code}' "${@:1:$#-1}" "$base_url$path")" || answer=$'\n000'
  status="${answer##*$'\n'}" body="${answer%$'\n'*}"
}

read_path() {
  if [ -n "$token" ]; then request -H "Authorization: Bearer $token" "$1"; else request "$1"; fi
}

post() { # body, signature
  request -X POST -H 'Content-Type: application/json' -H "X-Signature: $2" --data-binary "$1" /webhook
}

post_signed() { post "$1" "$(sign "$1")"; }

message() { # number, timestamp, text
  printf '{"message_id":"test-%s-%s","from":"%s","to":"+14155550100","ts":"%s","text":"%s"}' "$run" "$1" "$sender" "$2" "$3"
}

# Compares with the expected status, and a text that the body must contain.
expect() { # name, status, text
  if [ "$status" = "$2" ] && [[ $body == *"$3"* ]]; then
    passed=$((passed + 1))
    printf 'ok    %s\n' "$1"
  else
    failed=$((failed + 1))
    printf 'FAIL  %s\n      expected %s with %s\n      got      %s %s\n' "$1" "$2" "$3" "$status" "${body:0:300}"
  fi
}

echo "Checking $base_url"
request /health/live && expect "the process runs" 200 '{"status":"ok"}'
request /health/ready && expect "it is ready" 200 '{"status":"ready"}'
if [ "$status" = 000 ]; then
  echo "No response from $base_url; start the service, or set BASE_URL" >&2
  exit 1
fi

first="$(message 1 2025-01-15T10:00:00Z "Hello $run 100% _sure_")"
post "$first" 123 && expect "a wrong signature is refused" 401 '{"detail":"invalid signature"}'
request -X POST -H 'Content-Type: application/json' --data-binary "$first" /webhook
expect "no signature is refused" 401 '{"detail":"invalid signature"}'
signature="$(sign "$first")"
post "$first " "$signature" && expect "a changed body is refused" 401 '{"detail":"invalid signature"}'
read_path "/messages?q=$run" && expect "refused messages are not stored" 200 '"data":[],"total":0,'

post "$first" "$signature" && expect "a signed message is stored" 200 '{"status":"ok"}'
post "$first" "$signature" && expect "a duplicate is no error" 200 '{"status":"ok"}'
read_path "/messages?q=$run" && expect "a duplicate adds no row" 200 '"total":1,'
post_signed "$(message 1 2025-01-15T10:00:00Z changed)" && expect "a known id with other content is no error" 200 '{"status":"ok"}'
read_path "/messages?q=$run" && expect "the first copy is kept" 200 "\"text\":\"Hello $run 100% _sure_\""
for number in 2 3 4 5; do
  post_signed "$(message "$number" "2025-01-15T1$number:00:00Z" "More of $run, number $number")"
  expect "message $number is stored" 200 '{"status":"ok"}'
done

post_signed '{}' && expect "missing fields are named" 422 '"loc":["body","message_id"],"msg":"Field required"'
post_signed '{nope' && expect "broken JSON is refused" 422 '"type":"json_invalid"'
post_signed "${first/\"$sender\"/\"invalid\"}" && expect "a bad sender is refused" 422 'must be E.164 format'
post_signed "$(message 6 2025-01-15T10:00:00 x)" && expect "a bad timestamp is refused" 422 'ISO-8601'
post_signed "$(message 6 2025-01-15T10:00:00Z "$(printf '%4097s' '')")" && expect "a text that is too long is refused" 422 '"type":"string_too_long"'

from="from=%2B${sender#+}"
read_path "/messages?$from" && expect "the sender's messages are listed" 200 '"total":5,"limit":50,"offset":0}'
read_path "/messages?from=$sender" && expect "an unescaped + works" 200 '"total":5,'
read_path "/messages?$from&limit=2&offset=1" && expect "a page has its limit and offset" 200 '"total":5,"limit":2,"offset":1}'
[[ $body == *"test-$run-2"*"test-$run-3"* && $body != *"test-$run-4"* ]] || body="out of order: $body"
expect "a page is in the order of time" 200 '{"data":'
read_path "/messages?$from&since=2025-01-15T13:00:00Z" && expect "since is inclusive" 200 '"total":3,'
read_path "/messages?$from&q=MORE%20of" && expect "search ignores case" 200 '"total":4,'
read_path "/messages?$from&q=100%25%20_" && expect "% and _ are ordinary characters" 200 '"total":1,'
read_path "/messages?$from&q=n_mber" && expect "_ is no wildcard" 200 '"total":0,'
read_path "/messages?$from&offset=1000" && expect "a page past the end is empty" 200 '"data":[],"total":5,'
read_path "/messages?limit=0" && expect "limit 0 is refused" 422 'greater than or equal to 1'
read_path "/messages?limit=101" && expect "limit 101 is refused" 422 'less than or equal to 100'

read_path /stats && expect "statistics have their fields" 200 '"senders_count":'
read_path /metrics && expect "requests are counted" 200 'http_requests_total{path="/webhook",status="200"}'
expect "results are counted" 200 'webhook_requests_total{result="duplicate"}'
expect "latency is measured" 200 'request_latency_ms_count'
request /openapi.json && expect "the OpenAPI document is served" 200 '"/webhook"'
request /docs && expect "the documentation page is served" 200 '<html'
request /nothing && expect "an unknown path is 404" 404 '{"detail":"Not Found"}'
read_path /webhook && expect "a wrong method is 405" 405 '{"detail":"Method Not Allowed"}'

echo
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
