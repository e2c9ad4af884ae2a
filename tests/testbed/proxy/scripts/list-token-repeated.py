# SPDX-License-Identifier: Apache-2.0
"""The same continuation token again and again."""
from proxy import item, listing

operation, most, deadline = "list", 3, 10
ends = "bad data"
says = r"round in circles"
answer = listing(item("pre/x"), times_truncated=99)
