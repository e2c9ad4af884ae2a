# SPDX-License-Identifier: Apache-2.0
"""XML, but no listing."""
from proxy import listing, reply

operation, most, deadline = "list", 3, 10
ends = "bad data"
says = r"no listing"
answer = lambda s, c, r: reply(c, 200, b"<a/>")
