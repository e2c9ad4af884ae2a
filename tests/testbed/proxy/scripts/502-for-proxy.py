# SPDX-License-Identifier: Apache-2.0
"""A proxy's own error page in HTML, twice."""
from proxy import GOT, reply, times

operation, most, deadline = "get", 3, 10
ends = "ok"
says = GOT
answer = times(2, lambda s, c, r: reply(c, 502, b"<html><body>Bad Gateway</body>"))
