# SPDX-License-Identifier: Apache-2.0
"""A chunked body that lacks its last chunk, twice."""
from proxy import DATA, GOT, times

operation, most, deadline = "get", 3, 10
ends = "ok"
says = GOT


def run(s, c, r):
    c.sendall(b"HTTP/1.1 206 OK\r\nTransfer-Encoding: chunked\r\nContent-Range: bytes 100-199/2000\r\n\r\n")
    c.sendall(b"64\r\n" + DATA[100:200] + b"\r\n")


answer = times(2, run)
