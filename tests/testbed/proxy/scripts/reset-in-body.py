# SPDX-License-Identifier: Apache-2.0
"""The connection is reset in the middle of the body, twice."""
from proxy import DATA, GOT, abort, part, times

operation, most, deadline = "get", 3, 10
ends = "ok"
says = GOT


def broken(s, c, r):
    part(c, r, DATA, cut=50)
    abort(c)


answer = times(2, broken)
