# SPDX-License-Identifier: Apache-2.0
"""No XML at all."""
from proxy import reply

operation, most, deadline = "list", 3, 10
ends = "bad data"
says = r"no XML"
answer = lambda s, c, r: reply(c, 200, b"hello")
