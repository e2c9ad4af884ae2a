# SPDX-License-Identifier: Apache-2.0
"""Always busy: given up at the deadline, with the server's words."""
from proxy import always

operation, most, deadline = "get", 40, 2
ends = "unavailable"
says = r"HTTP 503 SlowDown: words of the server; \d+ attempts in"
answer = always(503, "SlowDown")
