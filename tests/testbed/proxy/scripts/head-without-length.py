# SPDX-License-Identifier: Apache-2.0
"""HEAD without a Content-Length."""

operation, most, deadline = "head", 3, 10
ends = "bad data"
says = r"Content-Length"
answer = lambda s, c, r: c.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
