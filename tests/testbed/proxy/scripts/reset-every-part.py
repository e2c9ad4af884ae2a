# SPDX-License-Identifier: Apache-2.0
"""Every part of a large GET is reset once."""
import hashlib

from proxy import abort, large, part

operation, most, deadline = "parts", 9, 30
ends = "ok"
says = hashlib.sha256(large()).hexdigest()


WHOLE = large()


def run(s, c, r):
    seen = sum(1 for other in s.requests if other.headers.get("range") == r.headers["range"])
    part(c, r, WHOLE, cut=100000 if seen == 1 else None)
    if seen == 1:
        abort(c)


answer = run
