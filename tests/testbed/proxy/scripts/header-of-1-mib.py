# SPDX-License-Identifier: Apache-2.0
"""One header line of 1 MiB."""
from proxy import DATA, reply

operation, most, deadline = "get", 3, 10
ends = "bad data"
says = r"header line too long|bytes of headers"
answer = lambda s, c, r: reply(c, 206, DATA[:100], ["X-A: " + "a" * (1 << 20)])
