# SPDX-License-Identifier: Apache-2.0
"""A certificate of our own, named as trusted."""
from proxy import GOT, good

operation, most, deadline = "get", 1, 10
ends = "ok"
says = GOT
answer = lambda s, c, r: good(c, r)
tls = "trusted"
