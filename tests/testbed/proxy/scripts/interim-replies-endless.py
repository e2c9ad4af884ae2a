# SPDX-License-Identifier: Apache-2.0
"""100 Continue for ever."""
from proxy import endless

operation, most, deadline = "get", 3, 10
ends = "bad data"
says = r"65536 bytes of headers"
answer = endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
