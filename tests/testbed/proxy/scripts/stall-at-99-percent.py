# SPDX-License-Identifier: Apache-2.0
"""The body stops one byte before its end, once."""
import time

from proxy import DATA, GOT, part, times

operation, most, deadline = "get", 6, 16
ends = "ok"
says = GOT


def run(s, c, r):
    part(c, r, DATA, cut=99)
    time.sleep(30)


answer = times(1, run)
