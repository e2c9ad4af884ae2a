# SPDX-License-Identifier: Apache-2.0
"""Something else listens at the port."""

operation, most, deadline = "get", 3, 10
ends = "bad data"
says = r"attempts"
answer = lambda s, c, r: c.sendall(b"SSH-2.0-hello\r\n\r\n")
