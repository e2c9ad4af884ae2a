#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The S3 store against a real Ceph radosgw, which is killed with -9 and started again while it is read.
set -euo pipefail
testbed=tests/testbed/radosgw
program=${ORRERY_BUILD:-build}/tests/test_store_s3
dir=$(mktemp -d "${TMPDIR:-/tmp}/orrery-s3-XXXXXX")
trap '"$testbed" down "$dir"' EXIT

"$testbed" up "$dir" $$
# shellcheck disable=SC1091
source "$dir/env"
export S3_BUCKET=orrery-test
"$testbed" bucket "$dir" "$S3_BUCKET"
"$program"
python3 tests/e2e/store_verbs.py
"${ORRERY_BUILD:-build}/tests/test_ckpt_race" "s3://$S3_BUCKET/race"

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
