# SPDX-License-Identifier: Apache-2.0
"""The ETag is another at every reply: the object is not taken for one."""
from proxy import large, part

operation, most, deadline = "parts", 40, 30
ends = "bad data"
says = r"object changed while it was read"
WHOLE = large()
answer = lambda s, c, r: part(c, r, WHOLE, tag=f'"{len(s.requests)}"')
