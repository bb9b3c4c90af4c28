#!/usr/bin/env bash
# Kills replicas and the database of the Compose profile `postgres` while messages arrive through the balancer. In the end every
# message must be acknowledged, and stored once. Needs Docker with Compose 2; it removes everything that it starts.
#
#   MESSAGES=100000 ROUNDS=6 ./tests/containers.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

messages="${MESSAGES:-100000}" rounds="${ROUNDS:-6}"
export COMPOSE_PROJECT_NAME=postroom-drill WEBHOOK_SECRET=drill DATABASE_PASSWORD=drill BALANCER_PORT="${BALANCER_PORT:-18080}"
compose() { docker compose --env-file /dev/null --profile postgres "$@"; }
summary="$(mktemp)"
trap 'compose down -v >/dev/null 2>&1 || true; rm -f "$summary"' EXIT

compose up -d --build --wait database replica balancer

awk -v count="$messages" 'BEGIN { for (i = 1; i <= count; i++)
  printf "{\"message_id\":\"drill-%d\",\"from\":\"+9198765%05d\",\"to\":\"+14155550100\",\"ts\":\"2025-01-15T10:00:00Z\",\"text\":\"drill %d\"}\n", i, i % 50000, i }' |
  docker run --rm -i --network "${COMPOSE_PROJECT_NAME}_default" -e WEBHOOK_SECRET postroom \
    send - --url http://balancer:8000 --concurrency 64 --tries 100 --json >"$summary" 2>/dev/null &
load=$!

# The container, and how long it is down.
strike() {
  docker kill "$COMPOSE_PROJECT_NAME-$1" >/dev/null
  echo "killed $1"
  sleep "$2"
  docker start "$COMPOSE_PROJECT_NAME-$1" >/dev/null
}
for ((round = 1; round <= rounds; round++)); do
  sleep 3
  kill -0 "$load" 2>/dev/null || break
  strike "replica-$((round % 3 + 1))" 2
  if ((round % 3 == 0)); then strike database-1 2; fi
done

answered=0
wait "$load" || answered=$?
cat "$summary"
stored="$(compose exec -T database psql -U postroom -Atc 'SELECT count(*), count(DISTINCT message_id) FROM messages')"
echo "sent $messages, stored $stored"
[ "$answered" -eq 0 ] && [ "$stored" = "$messages|$messages" ]
