# SPDX-License-Identifier: Apache-2.0
"""The body ends early, twice."""
from proxy import GOT, times, truncated

operation, most, deadline = "get", 3, 10
ends = "ok"
says = GOT
answer = times(2, truncated)
