#!/usr/bin/env bash
# Registers a person, recognises them and forgets them again; needs curl and jq. KEY is in the environment.
set -euo pipefail
address=$1 photo=$2

body=$(mktemp)
trap 'rm -f "$body"' EXIT

call() { # repeats what can be repeated, after Retry-After where the server says so; a refusal is one line
  local failed=0
  curl --silent --fail-with-body --output "$body" --retry 5 --retry-connrefused \
    --header @<(echo "Authorization: Bearer $KEY") "$@" || failed=$?
  ((failed)) || { cat "$body"; return; }
  jq --raw-output '"\(.code): \(.detail)"' "$body" >&2 || echo "curl ended with $failed" >&2
  return 1
}

once=$(cat /proc/sys/kernel/random/uuid) # one key for all tries: whatever the request does is done once
call "$address/v1/register" --header "Idempotency-Key: $once" \
  --form "photo=@$photo" --form external_id=E-1017 --form name=Ada \
  --form "consent_purpose=Entry to building A" --form consent_recorded_by=reception \
  | jq --raw-output '"registered \(.person.external_id)"'

recognise() { call "$address/v1/recognize" --form "photo=@$photo"; }
recognise | jq --raw-output '.faces[] | "\(.verdict) \(.person.name // "")"'

call --request DELETE "$address/v1/collections/default/persons/external_id:E-1017"
echo "after erasure: $(recognise | jq --raw-output '.faces[].verdict')"
