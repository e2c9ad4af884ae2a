# SPDX-License-Identifier: Apache-2.0
"""A reply lost, and another's object is there."""
from proxy import lost_create

operation, most, deadline = "create", 4, 10
ends = "exists already"
says = r"412"
answer = lost_create(b"them")
