# SPDX-License-Identifier: Apache-2.0
"""The bucket in the host name."""
from proxy import GOT, error, good

operation, most, deadline = "get", 1, 10
ends = "ok"
says = GOT


def run(s, c, r):
    if r.headers["host"] == f"hostile.localhost:{s.port}" and r.path == "/pre/key":
        good(c, r)
    else:
        error(c, 404, "NoSuchKey")


answer = run
host = "localhost"
env = {"S3_VIRTUAL_HOST": "1"}
