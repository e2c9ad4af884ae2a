# SPDX-License-Identifier: Apache-2.0
"""An error whose body never ends."""
from proxy import endless

operation, most, deadline = "get", 3, 10
ends = "bad data"
says = r"longer body"
answer = endless(b"HTTP/1.1 404 No\r\n\r\n", b"x" * 65536)
