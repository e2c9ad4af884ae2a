# SPDX-License-Identifier: Apache-2.0
"""A key that was not asked for."""
from proxy import item, listing

operation, most, deadline = "list", 3, 10
ends = "bad data"
says = r"not asked for"
answer = listing(item("other/x"))
