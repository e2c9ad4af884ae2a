# SPDX-License-Identifier: Apache-2.0
"""XML a hundred thousand levels deep."""
from proxy import listing

operation, most, deadline = "list", 3, 10
ends = "bad data"
says = r"too deep"
answer = listing("<a>" * 100000 + "</a>" * 100000)
