# SPDX-License-Identifier: Apache-2.0
"""A Content-Range with a number beyond 64 bits."""
from proxy import DATA, ranged

operation, most, deadline = "get", 3, 10
ends = "bad data"
says = r"Content-Range"
answer = ranged("bytes 100-199/99999999999999999999", DATA[:100])
