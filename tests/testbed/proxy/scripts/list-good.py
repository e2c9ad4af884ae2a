# SPDX-License-Identifier: Apache-2.0
"""A listing as it should be."""
from proxy import item, listing

operation, most, deadline = "list", 1, 10
ends = "ok"
says = r""
answer = listing(item("pre/x%2Ba+b%25"))
