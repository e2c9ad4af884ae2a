# SPDX-License-Identifier: Apache-2.0
"""Parts without an ETag: the bytes count."""
import hashlib

from proxy import large, part

operation, most, deadline = "parts", 9, 30
ends = "ok"
says = hashlib.sha256(large()).hexdigest()
WHOLE = large()
answer = lambda s, c, r: part(c, r, WHOLE, tag=None)
