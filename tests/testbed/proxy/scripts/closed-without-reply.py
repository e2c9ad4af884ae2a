# SPDX-License-Identifier: Apache-2.0
"""The connection is closed without a word, twice."""
from proxy import GOT, times

operation, most, deadline = "get", 3, 10
ends = "ok"
says = GOT
answer = times(2, lambda s, c, r: None)
