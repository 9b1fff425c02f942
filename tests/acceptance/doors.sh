#!/usr/bin/env bash
# Every curl call of the documents, in their order and as it stands there, against a running system (`make up`).
#
#   tests/acceptance/doors.sh                                        all doors, at http://localhost:8000
#   BASE=http://127.0.0.1:8001 tests/acceptance/doors.sh s1 s2       some of them, elsewhere
#
# Only the host and the placeholder ids are replaced. Ends with 1 at the first answer that is not as documented.
set -euo pipefail

BASE=${BASE:-http://localhost:8000}
PATIENCE=${PATIENCE:-60} # seconds that a run may take

s0() {
    door "s0: roadmap actions"
    curl -X POST -H "X-ROADMAP-AI-SECRET: dev-secret" -H "Content-Type: application/json" \
      "http://localhost:8000/actions/run" \
      -d '{"action": "count_words", "params": {"text": "to be or not to be"}}'
    answers 202 'it["run_id"].startswith("run_") and it["status"] == "queued" and len(it) == 2'
    stands_for run_20251222T101500Z_ab12cd34 run_id
    becomes '"success"' \
    curl -H "X-ROADMAP-AI-SECRET: dev-secret" \
      "http://localhost:8000/actions/run/run_20251222T101500Z_ab12cd34"
    answers 200 'it["run_id"] == id and it["result"]["total"] == 6 and it["error"] is None'
}

s1() {
    door "s1: async worker"
    curl -X POST "http://localhost:8000/jobs" \
        -H "Content-Type: application/json" \
        -d '{"payload": {"task": "hello_world", "data": "test message"}}'
    answers 202 'set(it) >= {"job_id", "status"} and it["status"] == "queued"'
    stands_for '{job_id}' job_id
    becomes '"completed"' \
    curl "http://localhost:8000/jobs/{job_id}"
    answers 200 'it == {"job_id": id, "status": "completed", "attempt_count": 1,
                        "payload": {"task": "hello_world", "data": "test message"}}'

    # Of its reference, which has no curl.
    curl -X POST "http://localhost:8000/jobs" -H "Content-Type: application/json" -d '{"payload": {"key": "value"}}'
    answers 202 'it["status"] == "queued"'
    stands_for '{job_id}' job_id
    becomes '"completed"' \
    curl "http://localhost:8000/jobs/{job_id}"
    answers 200 'it == {"job_id": id, "status": "completed", "attempt_count": 1, "payload": {"key": "value"}}'

    curl "http://localhost:8000/health"
    answers 200 'it == {"status": "healthy"}'
}

s2() {
    door "s2: job orchestrator"
    # Health check
    curl http://localhost:8000/health
    answers 200 'it == {"status": "healthy"}'

    # Basic job (sleeps 3 seconds)
    curl -X POST http://localhost:8000/jobs \
      -H "Content-Type: application/json" \
      -d '{}'
    answers 202 'it == {"id": it["id"], "status": "queued", "sleep_seconds": 3, "message": None, "result": None,
                        "created_at": it["created_at"]}'

    # Custom sleep duration
    curl -X POST http://localhost:8000/jobs \
      -H "Content-Type: application/json" \
      -d '{"sleep_seconds": 5}'
    answers 202 'it["status"] == "queued" and it["sleep_seconds"] == 5'

    # With message
    curl -X POST http://localhost:8000/jobs \
      -H "Content-Type: application/json" \
      -d '{"sleep_seconds": 2, "message": "hello world"}'
    answers 202 'it["status"] == "queued" and it["sleep_seconds"] == 2 and it["message"] == "hello world"'

    stands_for 550e8400-e29b-41d4-a716-446655440000 id
    becomes '"succeeded"' \
    curl http://localhost:8000/jobs/550e8400-e29b-41d4-a716-446655440000
    answers 200 'it == {"id": id, "status": "succeeded", "sleep_seconds": 2, "message": "hello world",
                        "result": {"slept_seconds": 2, "message": "hello world"},
                        "created_at": it["created_at"], "updated_at": it["updated_at"]}'

    curl http://localhost:8000/jobs
    answers 200 'len(it) >= 3 and it[0]["id"] == id and all("sleep_seconds" in job for job in it)'
}

s3() {
    door "s3: long-running API"
    # It has no curl; these are the calls that it draws.
    curl -X POST http://localhost:8000/tasks -H "Content-Type: application/json" \
      -d '{"type": "count_words", "payload": {"text": "to be or not to be"}}'
    answers 202 'it["task_id"] and it["status"] == "PENDING"'
    stands_for '{id}' task_id
    curl -N http://localhost:8000/tasks/{id}/stream
    test "$status" = 200 || fail "expected a stream"
    test "$(grep -c '"status": *"SUCCESS"' <<<"$body")" = 1 || fail "expected a stream that ends with SUCCESS"
    curl http://localhost:8000/tasks/{id}
    answers 200 'it["task_id"] == id and it["status"] == "SUCCESS" and it["result"]["total"] == 6'
}

door() { printf '\n== %s\n' "$1"; }

# The documents' `curl`, whose answer is left in $status and $body.
curl() {
    local call=("${@//http:\/\/localhost:8000/$BASE}") answer
    if test -n "${placeholder:-}"; then call=("${call[@]//"$placeholder"/$id}"); fi
    sent="curl ${call[*]}"
    answer=$(command curl --silent --show-error --max-time 60 --write-out '\n%{http_code}' "${call[@]}") ||
        { status=none body=; fail "the call failed"; }
    status=${answer##*$'\n'} body=${answer%$'\n'*}
}

# stands_for PLACEHOLDER MEMBER: from now on, the placeholder in a document is this member of the last answer.
stands_for() {
    placeholder=$1
    id=$(python "it['$2']") || fail "expected the member $2"
}

# answers STATUS CONDITION: so did the last call, and its JSON, `it`, fulfils this condition of Python.
answers() {
    test "$status" = "$1" || fail "expected $1"
    test "$(python "bool($2)")" = True || fail "expected $2"
    printf '%s\n  %s %s\n' "$sent" "$status" "$body"
}

# becomes STATUS CALL…: makes the call until it answers with this status of a run, or the run has ended.
becomes() {
    local wanted=$1 until=$((SECONDS + PATIENCE))
    shift
    while "$@" && grep -Eq '"status":"(queued|PENDING|running|processing|PROGRESS)"' <<<"$body"; do
        test $SECONDS -lt $until || fail "still not $wanted after $PATIENCE s"
        sleep 0.5
    done
    grep -q "\"status\":$wanted" <<<"$body" || fail "expected the status $wanted"
}

# python EXPRESSION: what it is, of `it` and `id`.
python() {
    python3 -c 'import json, sys
it, id = json.loads(sys.argv[1]), sys.argv[2]
print(eval(sys.argv[3]))' "$body" "${id:-}" "$1"
}

fail() {
    printf '\nNot as documented: %s\n  %s\n  %s %s\n' "$1" "$sent" "$status" "$body" >&2
    exit 1
}

test $# -gt 0 || set -- s0 s1 s2 s3
for name; do "$name"; done
printf '\nEvery call was answered as documented.\n'
