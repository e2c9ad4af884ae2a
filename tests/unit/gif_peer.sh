#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# ImageMagick reads our GIF and gets the very pixels that went in.
set -euo pipefail
convert --version 2>/dev/null | grep -q ImageMagick || { echo "skipped: no ImageMagick"; exit 77; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$ORRERY_BUILD/tests/test_gif" "$folder/peer"
convert "$folder/peer.gif" -coalesce -depth 8 rgb:"$folder/read.rgb"
cmp "$folder/peer.rgb" "$folder/read.rgb"
