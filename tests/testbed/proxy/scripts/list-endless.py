# SPDX-License-Identifier: Apache-2.0
"""A listing that never ends."""
from proxy import endless

operation, most, deadline = "list", 3, 20
ends = "bad data"
says = r"longer body"
answer = endless(b"HTTP/1.1 200 OK\r\n\r\n", b"<a></a>" * 10000)
