# SPDX-License-Identifier: Apache-2.0
"""A thousand header lines."""
from proxy import DATA, reply

operation, most, deadline = "get", 3, 10
ends = "bad data"
says = r"65536 bytes of headers"
answer = lambda s, c, r: reply(c, 206, DATA[:100], [f"X-{i}: " + "a" * 1000 for i in range(1000)])
