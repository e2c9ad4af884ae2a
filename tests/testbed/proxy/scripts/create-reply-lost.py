# SPDX-License-Identifier: Apache-2.0
"""A create was carried out, its reply lost: taken as ours."""
from proxy import lost_create

operation, most, deadline = "create", 4, 10
ends = "ok"
says = r""
answer = lost_create(b"mine")
