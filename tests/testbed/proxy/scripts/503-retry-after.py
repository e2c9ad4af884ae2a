# SPDX-License-Identifier: Apache-2.0
"""Busy, and says for how long."""
from proxy import GOT, always, times

operation, most, deadline = "get", 2, 10
ends = "ok"
says = GOT
answer = times(1, always(503, "SlowDown", ["Retry-After: 1"]))
