# SPDX-License-Identifier: Apache-2.0
"""A redirect within the same host."""
from proxy import reply

operation, most, deadline = "get", 1, 10
ends = "missing input"
says = r"redirects elsewhere"
answer = lambda s, c, r: reply(c, 302, b"", [f"Location: http://127.0.0.1:{s.port}/other"])
