# SPDX-License-Identifier: Apache-2.0
"""An internal error without a body, once."""
from proxy import GOT, reply, times

operation, most, deadline = "get", 2, 10
ends = "ok"
says = GOT
answer = times(1, lambda s, c, r: reply(c, 500))
