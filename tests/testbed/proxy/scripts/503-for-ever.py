# SPDX-License-Identifier: Apache-2.0
"""Always busy: given up at the deadline, with the server's words."""
from proxy import always

operation, most, deadline = "get", 40, 2
ends = "unavailable|deadline passed"  # the last attempt may meet the deadline on a loaded machine
says = r"HTTP 503 SlowDown: words of the server; \d+ attempts in|timed out after .*attempts in"
answer = always(503, "SlowDown")
