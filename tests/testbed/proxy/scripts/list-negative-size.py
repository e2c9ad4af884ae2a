# SPDX-License-Identifier: Apache-2.0
"""A negative size."""
from proxy import item, listing

operation, most, deadline = "list", 3, 10
ends = "bad data"
says = r"no size"
answer = listing(item("pre/x", "-1"))
