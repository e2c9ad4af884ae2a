# SPDX-License-Identifier: Apache-2.0
"""The object is replaced while it is read, ETag and all."""
from proxy import error, large, part, span

operation, most, deadline = "parts", 40, 30
ends = "bad data"
says = r"object changed while it was read"


OLD = large()
NEW = OLD[::-1]


def run(s, c, r):
    first, _ = span(r, len(OLD))
    if r.headers.get("if-match", '"old"') != '"old"' or (first and "if-match" in r.headers):
        error(c, 412, "PreconditionFailed")
    else:
        part(c, r, NEW if first else OLD, tag='"new"' if first else '"old"')


answer = run
