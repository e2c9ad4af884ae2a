# SPDX-License-Identifier: Apache-2.0
"""206 without Content-Range."""
from proxy import DATA, ranged

operation, most, deadline = "get", 3, 10
ends = "bad data"
says = r"without a proper Content-Range"
answer = ranged(None, DATA[:100])
