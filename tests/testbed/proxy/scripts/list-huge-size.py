# SPDX-License-Identifier: Apache-2.0
"""A size beyond 64 bits."""
from proxy import item, listing

operation, most, deadline = "list", 3, 10
ends = "bad data"
says = r"a size"
answer = listing(item("pre/x", "9" * 30))
