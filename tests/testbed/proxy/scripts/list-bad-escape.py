# SPDX-License-Identifier: Apache-2.0
"""Half an escape."""
from proxy import item, listing

operation, most, deadline = "list", 3, 10
ends = "bad data"
says = r"not asked for"
answer = listing(item("pre/x%2"))
