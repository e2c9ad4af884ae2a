# SPDX-License-Identifier: Apache-2.0
"""A key of 100,000 letters."""
from proxy import listing

operation, most, deadline = "list", 3, 10
ends = "bad data"
says = r"8192 bytes of text"
answer = listing("<Contents><Key>" + "k" * 100000 + "</Key></Contents>")
