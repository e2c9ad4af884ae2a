# SPDX-License-Identifier: Apache-2.0
"""Too many requests, once."""
from proxy import GOT, always, times

operation, most, deadline = "get", 2, 10
ends = "ok"
says = GOT
answer = times(1, always(429, "TooMany"))
