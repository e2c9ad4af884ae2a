# SPDX-License-Identifier: Apache-2.0
"""A chunk of 2^64 bytes."""

operation, most, deadline = "get", 40, 3
ends = "unavailable|bad data|deadline passed"
says = r"attempts"
HEAD = (b"HTTP/1.1 206 OK\r\nTransfer-Encoding: chunked\r\nContent-Range: bytes 100-199/2000\r\n\r\n"
        b"10000000000000000\r\nabc")
answer = lambda s, c, r: c.sendall(HEAD)
