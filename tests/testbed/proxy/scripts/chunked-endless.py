# SPDX-License-Identifier: Apache-2.0
"""Chunk after chunk, far more than was asked for."""
from proxy import endless

operation, most, deadline = "get", 3, 10
ends = "bad data"
says = r"longer body"
HEAD = b"HTTP/1.1 206 OK\r\nTransfer-Encoding: chunked\r\nContent-Range: bytes 100-199/2000\r\n\r\n"
answer = endless(HEAD, b"10000\r\n" + b"x" * 65536 + b"\r\n")
