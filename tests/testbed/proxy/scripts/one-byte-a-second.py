# SPDX-License-Identifier: Apache-2.0
"""One byte a second: too slow for the deadline, which holds."""
import time

operation, most, deadline = "get", 9, 3
ends = "deadline passed"
says = r"attempt"


def run(s, c, r):
    c.sendall(b"HTTP/1.1 206 OK\r\nContent-Length: 100\r\nContent-Range: bytes 100-199/2000\r\n\r\n")
    for _ in range(100):
        c.sendall(b"x")
        time.sleep(1)


answer = run
