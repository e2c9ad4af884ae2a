#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# docs/config.md is what the schema says. To renew it: orrery config reference > docs/config.md
set -euo pipefail
diff <("$ORRERY_BIN/orrery" config reference) docs/config.md
