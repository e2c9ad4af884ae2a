# SPDX-License-Identifier: Apache-2.0
"""200 to a ranged GET, with the whole object."""
from proxy import DATA, reply

operation, most, deadline = "get", 3, 10
ends = "bad data"
says = r"longer body"
answer = lambda s, c, r: reply(c, 200, DATA)
