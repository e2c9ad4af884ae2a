# SPDX-License-Identifier: Apache-2.0
"""A redirect to a local file."""
from proxy import reply

operation, most, deadline = "get", 1, 10
ends = "missing input"
says = r"redirects elsewhere"
answer = lambda s, c, r: reply(c, 301, b"", ["Location: file:///etc/passwd"])
