# SPDX-License-Identifier: Apache-2.0
"""The reply stops in its headers."""
import time

operation, most, deadline = "get", 9, 3
ends = "deadline passed"
says = r"attempt"


def run(s, c, r):
    c.sendall(b"HTTP/1.1 206 OK\r\nContent-Length: 100\r\n")
    time.sleep(30)


answer = run
