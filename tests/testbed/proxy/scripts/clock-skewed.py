# SPDX-License-Identifier: Apache-2.0
"""The server's clock is four hours ahead: corrected once."""
from proxy import GOT, skewed

operation, most, deadline = "get", 2, 10
ends = "ok"
says = GOT
answer = skewed(True)
