# SPDX-License-Identifier: Apache-2.0
"""A redirect to another host: credentials must not go there."""
from proxy import reply

operation, most, deadline = "get", 1, 10
ends = "missing input"
says = r"redirects elsewhere"
answer = lambda s, c, r: reply(c, 307, b"", ["Location: http://localhost.elsewhere.example/"])
