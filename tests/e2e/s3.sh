#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The S3 store against a real Ceph radosgw, which is killed with -9 and started again while it is read.
set -euo pipefail
testbed=tests/testbed/radosgw
program=${ORRERY_BUILD:-build}/tests/test_store_s3
dir=$(mktemp -d "${TMPDIR:-/tmp}/orrery-s3-XXXXXX")
relay=
trap '[[ -z $relay ]] || kill "$relay" 2>/dev/null; "$testbed" down "$dir"' EXIT

"$testbed" up "$dir" $$
# shellcheck disable=SC1091
source "$dir/env"
export S3_BUCKET=orrery-test
"$testbed" bucket "$dir" "$S3_BUCKET"
"$program"
python3 tests/e2e/store_verbs.py
python3 tests/e2e/ckpt_uploads.py
"${ORRERY_BUILD:-build}/tests/test_ckpt_race" "s3://$S3_BUCKET/race"

# Every byte and object counted while replies are refused, cut and lost between client and server.
echo "bad weather before the server"
python3 tests/testbed/proxy/proxy.py weather "$AWS_ENDPOINT_URL" 503=3% reset=3% truncate=3% lost=3% >"$dir/relay" &
relay=$!
until [[ -s $dir/relay ]]; do sleep 0.1; done
AWS_ENDPOINT_URL=$(cat "$dir/relay") "${ORRERY_BUILD:-build}/tests/store_faults" "s3://$S3_BUCKET/weather" "${S3_OBJECTS:-300}" none
kill "$relay"
relay=
rm "$dir/relay"

echo "killing the server while it is read"
"$program" reads "${S3_SECONDS:-15}" &
reader=$!
for ((i = 0; i < ${S3_SECONDS:-15} * 4 / 15; i++)); do
    sleep 2
    "$testbed" crash "$dir"
    sleep 0.5
    "$testbed" revive "$dir"
done
wait "$reader"
