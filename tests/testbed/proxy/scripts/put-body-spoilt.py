# SPDX-License-Identifier: Apache-2.0
"""The body changed on its way, once."""
from proxy import error, reply

operation, most, deadline = "put", 2, 10
ends = "ok"
says = r""
answer = lambda s, c, r: error(c, 400, "BadDigest") if len(s.requests) < 2 else reply(c, 200)
