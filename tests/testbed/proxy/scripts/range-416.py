# SPDX-License-Identifier: Apache-2.0
"""The range lies behind the end."""
from proxy import always

operation, most, deadline = "get", 1, 10
ends = "bad data"
says = r"at the end or behind"
answer = always(416, "InvalidRange")
