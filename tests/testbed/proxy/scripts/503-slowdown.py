# SPDX-License-Identifier: Apache-2.0
"""Busy twice, then right."""
from proxy import GOT, always, times

operation, most, deadline = "get", 3, 10
ends = "ok"
says = GOT
answer = times(2, always(503, "SlowDown"))
